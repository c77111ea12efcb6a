"""How good samples are after so many evaluations of the network, for each sampler and spacing.

python benchmarks/samplers.py                        # two Gaussians, whose best network is known: two minutes on one core
python benchmarks/samplers.py --run runs/ldm -n 500  # also a trained run, its latents against those of its cache
python benchmarks/samplers.py --table                # the tables of docs/samplers.md, from results/samplers.json

Two Gaussians: half of the data is N(1, 0.25^2), half N(-1, 0.25^2), under the schedule `cosine`. What is measured is the Wasserstein distance
W1 of 65,536 samples from that distribution, from the same even spread of noise for all; `floor` is that of as many true draws, below which
samplers that draw noise cannot be told apart. Nothing is learned, so all of it is the solver's.

A trained run: sliced W2 (512 directions, the same for all) of N sampled latents from the cache's held-out ones, or its training ones where
too few are held out, without guidance, with the same seeds for all and the basic 90 % interval of 200 bootstraps of the samples. `floor` is that of
as many training latents. `apart` is how far the latents are, root mean square, from those that DDIM reaches from the same noise in 200 steps:
only of samplers that draw no noise. Results are added to results/samplers.json, a part at a time.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, describe
from torch import Tensor

from ldmctl import registry
from ldmctl.config.levels import Spacing
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.shared import Coding
from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.model import open_model
from ldmctl.diffusion.sampling import rows_of, sample_latents
from ldmctl.diffusion.spacing import levels, start
from ldmctl.evaluation.lineage import open_lineage
from ldmctl.training import engine as engines

SAMPLERS = [
    "ddim",
    "heun",
    "lms",
    "deis",
    "dpmpp-2m",
    "unipc",
    "adaptive",
    "euler-ancestral",
    "dpmpp-2s-ancestral",
    "dpmpp-2m-sde",
    "dpmpp-3m-sde",
]
SPACINGS = ["trailing", "quadratic", "beta", "karras", "exponential"]
NOISY = ("euler-ancestral", "dpmpp-2s-ancestral", "dpmpp-2m-sde", "dpmpp-3m-sde")  # draw noise, so that no path is theirs
TWICE = ("heun", "dpmpp-2s-ancestral")  # evaluate twice a step
BUDGETS = [6, 10, 20, 50, 100]
DRAWS, DIRECTIONS, BOOTSTRAPS = 65_536, 512, 200
CONVERGED = 200  # steps of DDIM


def made(kind: str, name: str, **options: Any) -> Any:
    """A plugin with these keys."""
    return registry.build(kind, plugin_config(kind, {"type": name, **options}))


def steps_for(sampler: str, budget: int) -> int:
    """How many steps cost about so many evaluations; an adaptive sampler takes at least twice as many as it has steps."""
    return (budget + 1) // 2 if sampler in TWICE else max(budget // 4, 5) if sampler == "adaptive" else budget


class Counted:
    """A `denoise` that knows how often it was called."""

    def __init__(self, denoise: Any):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        self.calls += 1
        return self.denoise(x, sigma)


# -- two Gaussians -----------------------------------------------------------------


def two_gaussians(x: Tensor, sigma: Any) -> Tensor:
    """The best estimate of clean."""
    square = float(sigma) ** 2
    return (0.0625 * x + square * torch.tanh(x / (square + 0.0625))) / (square + 0.0625)


def draws(count: int, generator: torch.Generator) -> Tensor:
    """True draws [count], float64."""
    side = 1 - 2 * torch.randint(0, 2, (count,), generator=generator)
    return side + 0.25 * torch.randn(count, generator=generator, dtype=torch.float64)


def quantiles(count: int) -> Tensor:
    """The middles of `count` equal parts of the distribution [count], by bisection."""
    wanted = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    low, high = torch.full_like(wanted, -4), torch.full_like(wanted, 4)
    for _ in range(60):
        middle = (low + high) / 2
        share = (torch.special.ndtr((middle - 1) / 0.25) + torch.special.ndtr((middle + 1) / 0.25)) / 2
        low, high = torch.where(share < wanted, middle, low), torch.where(share < wanted, high, middle)
    return high


def analytic() -> dict[str, Any]:
    """W1 of every sampler, spacing and budget."""
    wanted, schedule = quantiles(DRAWS), made("schedule", "cosine")
    w1 = lambda found: round((found.flatten().sort().values - wanted).abs().mean().item(), 5)
    floor = [w1(draws(DRAWS, torch.Generator().manual_seed(seed))) for seed in range(8)]
    first = torch.special.ndtri((torch.arange(DRAWS, dtype=torch.float64) + 0.5) / DRAWS).reshape(-1, 1, 1, 1)
    rows = []
    for sampler in SAMPLERS:
        for spacing in SPACINGS:
            for budget in BUDGETS:
                generator = torch.Generator().manual_seed(0)
                noise = lambda *_, generator=generator: torch.randn(DRAWS, 1, 1, 1, generator=generator, dtype=torch.float64)
                _, sigmas = levels(schedule, steps_for(sampler, budget), spacing)
                denoise = Counted(two_gaussians)
                found = made("sampler", sampler)(denoise, start(first, sigmas), sigmas, noise)
                rows.append({"sampler": sampler, "spacing": spacing, "budget": budget, "evaluations": denoise.calls, "w1": w1(found)})
    return {"schedule": "cosine", "draws": DRAWS, "floor": round(sum(floor) / len(floor), 5), "rows": rows}


# -- a trained run -----------------------------------------------------------------


def sliced(one: Tensor, other: Tensor, directions: Tensor) -> Tensor:
    """Sliced W2 of latents [N,D] and [N,D] along directions [D,K]."""
    gap = (one @ directions).sort(0).values - (other @ directions).sort(0).values
    return gap.square().mean().sqrt()


def judged(found: Tensor, real: Tensor, directions: Tensor) -> dict[str, float]:
    """The distance of samples [N,D] from real latents [N,D], and its 90 % interval."""
    generator = torch.Generator().manual_seed(1)
    again = [
        sliced(found[torch.randint(len(found), (len(found),), generator=generator)], real, directions).item() for _ in range(BOOTSTRAPS)
    ]
    low, high = torch.tensor(again).quantile(torch.tensor([0.05, 0.95])).tolist()
    distance = sliced(found, real, directions).item()  # those of draws with repeats lie higher: hence the basic interval, mirrored
    return {"distance": round(distance, 4), "low": round(2 * distance - high, 4), "high": round(2 * distance - low, 4)}


def trained(run: str, count: int, budgets: list[int], samplers: list[str], spacings: list[str], table: str | None) -> dict[str, Any]:
    """The distance of every sampler, spacing and budget on a run of fit-diffusion."""
    engine = engines.start(Coding())
    model = open_model(run, engine, tile=None)
    lineage = open_lineage(model.source, engine)
    classes = len(model.classes)
    labels = [seed % classes if classes else -1 for seed in range(count)]

    def sampled(sampler: str, spacing: str, steps: int) -> tuple[Tensor, int, float]:
        plugin, calls = made("sampler", sampler), 0

        def counted(denoise: Any, x: Tensor, sigmas: Tensor, noise: Any) -> Tensor:
            nonlocal calls
            found = plugin(watched := Counted(denoise), x, sigmas, noise)
            calls = max(calls, watched.calls)
            return found

        began, parts = time.perf_counter(), []
        for first in range(0, count, 64):
            seeds = range(first, min(first + 64, count))
            where = Spacing.model_validate(table if spacing == "table" else spacing)
            settings = {"prediction": model.header["prediction"], "shape": tuple(model.header["latent"]), "guidance": 1.0}
            parts.append(
                sample_latents(
                    model.network, model.schedule, counted, engine, seeds=seeds, asks=[Ask(label) for label in labels[seeds.start : seeds.stop]], steps=steps,
                    batch=rows_of(64), spacing=where, **settings,
                )
            )  # fmt: skip
        return torch.cat(parts).flatten(1).double().cpu(), calls, time.perf_counter() - began

    held = lineage.take("val", count).latent if "val" in lineage.splits else torch.empty(0)
    training = lineage.take("train", 2 * count).latent.flatten(1).double().cpu()
    real = held.flatten(1).double().cpu() if len(held) >= count else training[1::2][:count]
    size = real.shape[1]
    directions = torch.nn.functional.normalize(
        torch.randn(size, DIRECTIONS, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=0
    )
    converged, _, _ = sampled("ddim", "trailing", CONVERGED)
    rows = [
        {"sampler": "ddim", "spacing": "trailing", "budget": CONVERGED, "evaluations": CONVERGED, **judged(converged, real, directions)}
    ]
    for sampler in samplers:
        for spacing in spacings:
            for budget in budgets:
                found, calls, seconds = sampled(sampler, spacing, steps_for(sampler, budget))
                apart = None if sampler in NOISY else round((found - converged).square().mean().sqrt().item(), 4)
                row = {"sampler": sampler, "spacing": spacing, "budget": budget, "evaluations": calls, **judged(found, real, directions)}
                rows.append({**row, "apart": apart, "seconds": round(seconds, 1)})
                print(json.dumps(rows[-1]), flush=True)
    header = {"latent": model.header["latent"], "prediction": model.header["prediction"], "schedule": model.header["schedule"]["type"]}
    against = "held-out" if len(held) >= count else "training"
    return {
        **header,
        "samples": count,
        "against": f"{against} latents",
        "floor": judged(training[::2][:count], real, directions),
        "rows": rows,
    }


# -- tables ------------------------------------------------------------------------


def tables(found: dict[str, Any]) -> str:
    """The tables of docs/samplers.md, in Markdown."""
    out = []
    if part := found.get("two_gaussians"):
        out.append(grid(part["rows"], lambda row: f"{row['w1']:.3f}", BUDGETS))
    if part := found.get("trained"):
        budgets = sorted({row["budget"] for row in part["rows"]} - {CONVERGED})
        out.append(
            grid(part["rows"], lambda row: f"{row['distance']:.3f}" + ("" if row["apart"] is None else f" ({row['apart']:.3f})"), budgets)
        )
    return "\n\n".join(out)


def grid(rows: list[dict[str, Any]], cell: Any, budgets: list[int]) -> str:
    """A row for each sampler and spacing, a column for each budget; the best cell of a column is bold."""
    key = "w1" if "w1" in rows[0] else "distance"
    fair = [row for row in rows if row["evaluations"] <= row["budget"] + 1]
    best = {budget: min((row[key] for row in fair if row["budget"] == budget), default=math.nan) for budget in budgets}
    lines = ["| sampler | spacing | " + " | ".join(map(str, budgets)) + " |", "|---" * (len(budgets) + 2) + "|"]
    for sampler, spacing in dict.fromkeys((row["sampler"], row["spacing"]) for row in rows):
        shown = []
        for budget in budgets:
            row = next((row for row in rows if (row["sampler"], row["spacing"], row["budget"]) == (sampler, spacing, budget)), None)
            said = "" if row is None else cell(row) + (f" in {row['evaluations']}" if sampler == "adaptive" else "")
            shown.append(f"**{said}**" if row is not None and row[key] == best[budget] else said)
        lines.append(f"| `{sampler}` | `{spacing}` | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is asked for, and add it to the result."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", help="a run folder of fit-diffusion with its cache, instead of the two Gaussians")
    options.add_argument("-n", type=int, default=500, help="samples of each cell")
    options.add_argument("--budgets", type=int, nargs="+", default=[10, 20])
    options.add_argument("--samplers", nargs="+", default=SAMPLERS)
    options.add_argument("--spacings", nargs="+", default=["trailing", "karras"])
    options.add_argument("--spacing-table", help="a file of `ldmctl spacing`, for the spacing `table`")
    options.add_argument("--table", action="store_true", help="print the tables of the result and measure nothing")
    asked = options.parse_args()
    file = RESULTS / "samplers.json"
    found = json.loads(file.read_text()) if file.exists() else {"benchmark": "samplers"}
    if asked.table:
        print(tables(found))
        return
    machine, began = describe(), time.perf_counter()
    spaced = (asked.samplers, asked.spacings, asked.spacing_table)
    part = trained(asked.run, asked.n, asked.budgets, *spaced) if asked.run else analytic()
    found["trained" if asked.run else "two_gaussians"] = {"machine": machine, "seconds": round(time.perf_counter() - began, 1), **part}
    Path(file).write_text(json.dumps(found, indent=1) + "\n")
    print(tables(found))


if __name__ == "__main__":
    main()
