"""A table of noise levels made for one's own denoiser, which `sample spacing=FILE` reads (after arXiv:2404.14507)."""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl.config.levels import table_of
from ldmctl.config.schemas.spacing import FindSpacing
from ldmctl.console import Console
from ldmctl.diffusion.aligned import bound_costs, cheapest_way, cost_of, path_costs
from ldmctl.diffusion.network import load_network
from ldmctl.diffusion.spacing import ends, levels
from ldmctl.errors import ConfigError, DivergedError, MismatchError
from ldmctl.evaluation.lineage import estimated, open_lineage
from ldmctl.storage.atomic import write_text
from ldmctl.storage.folder import make_folder
from ldmctl.storage.record import model_file
from ldmctl.training import engine as engines
from ldmctl.training.order import generator, micro_batches

BESIDE = ("beta", "trailing", "karras", "exponential")  # spacings that the table is compared with


def spacing(config: FindSpacing, *, console: Console, out: str | Path | None = None) -> dict[str, Any]:
    """Find the levels and write them to `out`, by default spacing.json in the run folder, of a snapshot spacing-STEP.json -> what the file holds.

    A run whose cache is gone, and a file that is no such table, are a MismatchError.
    """
    # Build the parts.
    engine = engines.start(config.machine)
    source = model_file(config.run, verb="fit-diffusion")
    lineage = open_lineage(source, engine)
    file = Path(out).expanduser() if out is not None else table_of(config.run)
    refuse_other(file)
    if not lineage.splits:
        raise MismatchError(f"The levels are found with the cached latents of {config.run}, which are not there. {lineage.lacking}".strip())
    grid = grid_of(config, lineage.schedule)
    items = lineage.take("train" if "train" in lineage.splits else "val", config.count)

    # Ask the network at every level of the grid.
    measure = {"path": path_costs, "bound": bound_costs}[config.cost]
    costs = torch.zeros(len(grid), len(grid), dtype=torch.float64)
    with console.bar("looking", len(items.latent), unit="latents") as bar:
        for rows in micro_batches(len(items.latent), config.batch):
            part = items._replace(latent=items.latent[rows], labels=items.labels[rows])

            def denoise(x: Tensor, level: float, part: Any = part) -> Tensor:
                return estimated(lineage, lineage.network, part, x, level)

            with torch.no_grad():
                costs += measure(denoise, part.latent, grid, generator("cpu", "spacing", rows.start)) * len(part.latent)
            bar.advance(rows.stop, amount=rows.stop)
    costs /= len(items.latent)

    # Take the cheapest way, and say what it costs.
    if bool(costs.isnan().any()) or not bool(costs[0, -1].isfinite()):
        raise DivergedError(f"The network of {config.run} gives numbers that are not finite, so no levels follow from it.")
    found = [round(float(grid[place]), 6) for place in cheapest_way(costs, config.steps)]
    cost = cost_of(costs, grid, found)
    beside = {name: cost_of(costs, grid, levels(lineage.schedule, config.steps, name)[1].tolist()) for name in BESIDE}
    table = {
        "levels": found,
        "lowest": config.lowest,
        "cost": round(cost, 6),
        "cost_of": {name: round(value, 6) for name, value in beside.items()},
        "by": config.cost,
        "latents": len(items.latent),
        "model": load_network(source, engine)[2],
    }
    make_folder(file.parent)
    write_text(file, json.dumps(table, indent=1) + "\n")
    said = ", ".join(f"{value / cost:.1f} times as high with {name}" for name, value in beside.items())
    many = f"{len(found)} levels from {found[0]:g} to {found[-1]:g} are" if len(found) > 1 else f"One level, {found[0]:g}, is"
    console.say(f"{many} in {file}. What steps err by would be {said}.")
    console.say(f"Pictures with them: ldmctl sample --run {config.run} --steps {config.steps} spacing={file}")
    return {"spacing": str(file), **table}


def grid_of(config: FindSpacing, schedule: Any) -> Tensor:
    """Levels [M], float64, rising evenly in the logarithm; a ConfigError where there is nothing between the ends."""
    highest, _ = ends(schedule, highest=config.highest)
    if config.lowest >= highest:
        raise ConfigError(f"lowest={config.lowest:g} is not below the highest level, {highest:g}.")
    return torch.logspace(math.log2(config.lowest), math.log2(highest), config.grid, base=2, dtype=torch.float64)


def refuse_other(file: Path) -> None:
    """A MismatchError where the table would take the place of anything but an earlier one."""
    if not os.path.lexists(file):
        return
    try:
        own = "levels" in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        own = False
    if not own:
        raise MismatchError(f"{file} is there already and is no table of levels, so it is not replaced. Name another --out.")


def plan_spacing(config: FindSpacing) -> dict[str, Any]:
    """How much work it would be."""
    network, _, _ = load_network(model_file(config.run, verb="fit-diffusion"), engines.start(config.machine))
    return {
        "network": f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters",
        "forwards": f"{config.grid * config.count:,}, of {config.count} latents at {config.grid} levels",
    }
