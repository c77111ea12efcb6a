"""How good the pictures of a trained run are after so many evaluations of the network: Frechet distance in the features of `fitted`.

python benchmarks/sampler_quality.py FOLDER -n 10000     # FOLDER is what benchmarks/mnist.py left: runs/ldm, cache
python benchmarks/sampler_quality.py FOLDER --table      # the table of docs/guides/samplers.md, from the result

Each cell of CELLS is a sampler, a spacing and a number of steps. All cells draw the same seeds and labels, evenly, without guidance, and are
compared with the same 10,000 training pictures by the classifier that `ldmctl eval-samples` fits to the labels. Every cell is also compared
with the best of those with the most evaluations, seed by seed: `ratio` is how many times as far it is from real pictures, with the 95 % interval of
leaving out a tenth of the seeds at a time, the same ones in both. The result is written after each cell, and features of a cell stay in
FOLDER/quality, so that the command goes on where it was stopped.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, describe
from torch import Tensor

from ldmctl.config.compared import compose_judgement
from ldmctl.config.schemas.eval_samples import EvalSamples
from ldmctl.console import Console
from ldmctl.diffusion.wanted import wanted
from ldmctl.evaluation.extraction import numbers
from ldmctl.evaluation.frechet import frechet_distance, statistics_of
from ldmctl.evaluation.jackknife import groups_of, interval
from ldmctl.evaluation.judging import Parts, open_parts
from ldmctl.stages.eval_samples import look_at_all
from ldmctl.storage import weights

CELLS = [  # sampler, spacing, steps, evaluations
    ("ddim", "trailing", 20, 20),
    ("unipc", "beta", 20, 20),
    ("unipc", "beta", 50, 50),
    ("unipc", "beta", 200, 200),
    ("dpmpp-2m-sde", "trailing", 20, 20),
    ("ddim", "trailing", 50, 50),
    ("dpmpp-2m", "beta", 20, 20),
    ("unipc", "beta", 10, 10),
    ("dpmpp-2m-sde", "trailing", 50, 50),
    ("ddim", "trailing", 10, 10),
    ("unipc", "trailing", 20, 20),
    ("deis", "beta", 20, 20),
    ("ddim", "trailing", 200, 200),
    ("dpmpp-2m-sde", "trailing", 200, 200),
]
TOGETHER, KEPT = 250, 1000  # pictures made at once, and whose features are written down at once


def name_of(cell: tuple[str, str, int, int]) -> str:
    """`unipc-beta-20`."""
    return f"{cell[0]}-{cell[1]}-{cell[2]}"


def config_for(folder: Path, count: int, sampler: str = "ddim", spacing: str = "trailing", steps: int = 20) -> EvalSamples:
    """What eval-samples would be asked for."""
    keys = [f"run={folder}/runs/ldm", f"against={folder}/cache", f"count={count}", "extractor=fitted", "guidance=1", f"batch={TOGETHER}"]
    return compose_judgement([*keys, f"sampler={sampler}", f"spacing={spacing}", f"steps={steps}"], {})[0]


def features_of(parts: Parts, config: EvalSamples, file: Path) -> tuple[Tensor, float]:
    """(features [N,D] of the pictures that this config makes, seconds that it took to make them)."""
    if file.exists():
        kept, header = weights.load(file)
        return kept["features"], float(header["seconds"])
    assert parts.model is not None
    asked = wanted(config, parts.model.header)
    seeds, begun = list(asked.seeds), file.with_suffix(".begun")
    kept, header = weights.load(begun) if begun.exists() else ({}, {})
    found, spent = list(kept.values()), float(header.get("seconds", 0))
    for first in range(sum(map(len, found)), len(seeds), TOGETHER):
        places = range(first, min(first + TOGETHER, len(seeds)))
        began = time.perf_counter()
        images, bad = parts.model.make(config, [seeds[place] for place in places], [asked.ask(place) for place in places], None)
        parts.model.refuse(bad, config)
        spent += time.perf_counter() - began
        found.append(numbers(parts.extractor, images, parts.engine))
        if sum(map(len, found)) % KEPT == 0:
            weights.save(begun, {"features": torch.cat(found)}, {"kind": "features", "seconds": spent})
    weights.save(file, {"features": torch.cat(found)}, {"kind": "features", "seconds": spent})
    begun.unlink(missing_ok=True)
    return torch.cat(found), spent


def compared(cells: dict[str, Tensor], reference: Tensor) -> dict[str, dict[str, Any]]:
    """Of each cell its distance, and how many times as far it is as the best of those with the most evaluations."""
    real = statistics_of(reference)
    group = groups_of(len(next(iter(cells.values()))))
    whole = {name: frechet_distance(statistics_of(found), real) for name, found in cells.items()}
    left = {
        name: [frechet_distance(statistics_of(found[group != each]), real) for each in range(int(group.max()) + 1)]
        for name, found in cells.items()
    }
    made = [cell for cell in CELLS if name_of(cell) in cells]
    rivals = [name_of(cell) for cell in made if cell[3] == max(each[3] for each in made)]
    best, out = min(rivals, key=lambda name: whole[name]), {}
    for name in cells:
        _, low, high = interval(whole[name], left[name])
        ratios = [one / other for one, other in zip(left[name], left[best], strict=True)]
        ratio, least, most = interval(whole[name] / whole[best], ratios)
        out[name] = {
            **dict(zip(("distance", "low", "high"), (round(each, 4) for each in (whole[name], low, high)), strict=True)),
            **dict(zip(("ratio", "ratio_low", "ratio_high"), (round(each, 4) for each in (ratio, least, most)), strict=True)),
            "against": best,
        }
    return out


def table(found: dict[str, Any]) -> str:
    """In Markdown."""
    lines = ["| sampler | spacing | evaluations | Frechet distance | times that of the best with the most |", "|---|---|---|---|---|"]
    for row in sorted(found["rows"], key=lambda row: (row["evaluations"], row["distance"])):
        distance = f"{row['distance']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        lines.append(f"| `{row['sampler']}` | `{row['spacing']}` | {row['evaluations']} | {distance} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, compare all, write the result."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("-n", type=int, default=10_000, help="pictures of each cell")
    options.add_argument("--most", type=int, default=200, help="leave out cells of more evaluations [default: 200]")
    options.add_argument("--compile", action="store_true", help="the network by torch.compile: the same pictures up to rounding, sooner")
    options.add_argument("--table", action="store_true", help="print the table of the result and measure nothing")
    asked = options.parse_args()
    file = RESULTS / "sampler_quality.json"
    if asked.table:
        print(table(json.loads(file.read_text())))
        return
    machine, console = describe(), Console()
    home = asked.folder / "quality"
    home.mkdir(exist_ok=True)
    parts = open_parts(config_for(asked.folder, asked.n), home, console)
    if asked.compile and parts.model is not None:
        parts.model.network.denoiser = torch.compile(parts.model.network.denoiser.to(memory_format=torch.channels_last))
    real = look_at_all(parts)
    floor = frechet_distance(statistics_of(real.aside.features), statistics_of(real.reference.features))
    about = {
        "extractor": parts.about,
        "samples": asked.n,
        "references": len(real.reference),
        "others": len(real.aside),
        "floor": round(floor, 4),
    }
    cells, rows = {}, []
    for cell in [cell for cell in CELLS if cell[3] <= asked.most]:
        config, kept = config_for(asked.folder, asked.n, *cell[:3]), home / f"{name_of(cell)}-{asked.n}.safetensors"
        cells[name_of(cell)], seconds = features_of(parts, config, kept)
        rows.append(
            {"sampler": cell[0], "spacing": cell[1], "evaluations": cell[3], "compiled": asked.compile, "seconds": round(seconds, 1)}
        )
        found = compared(cells, real.reference.features)
        result = {
            "benchmark": "sampler_quality",
            "machine": machine,
            **about,
            "rows": [row | found[name] for row, name in zip(rows, cells, strict=True)],
        }
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(table(result), flush=True)


if __name__ == "__main__":
    main()
