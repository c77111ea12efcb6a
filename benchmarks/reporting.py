"""Seconds and size of `ldmctl report` of a run of 20,000 reports.

python benchmarks/reporting.py            # writes results/reporting.json
python benchmarks/reporting.py --print

The run is made, not trained: a run of fit-diffusion on the quickstart's shapes, which learned for a step, whose metrics.jsonl then gets --count reports of the
numbers that it reported itself, its validation by noise level among them, and forty previews of 1,000 x 1,000 pixels of noise, which no format makes small.
Each command is a process of its own, its start included; the median of three. Seconds of the processor are
what others on the machine change little.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, keep
from PIL import Image
from process import command, processor_seconds

from ldmctl.console import Console
from ldmctl.stages.report import report

PREVIEWS, SIDE = 40, 1000
TIMES = 3


def main() -> None:
    """Make the run, report on it, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=20_000, help="reports of the run")
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        numbers = lengthen(folder / "runs/ldm/metrics.jsonl", asked.count)
        preview(folder / "runs/ldm/samples")
        told = [clocked(folder) for _ in range(TIMES)]
        alone = statistics.median(of_the_report(folder) for _ in range(TIMES))
    found: dict[str, Any] = {
        "reports": asked.count,
        "numbers_of_a_report": numbers,
        "previews": PREVIEWS,
        **{key: statistics.median(each[key] for each in told) for key in ("seconds", "with_start", "processor_seconds", "resident_mib")},
        "processor_seconds_of_the_report": round(alone, 2),
        "bytes": told[0]["bytes"],
        "chapters": len(told[0]["chapters"]),
    }
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("reporting", found, machine)


def train(folder: Path) -> None:
    """A chain of a few steps: a run folder as the commands write it."""
    small = ["dataset.count=64", "dataset.val_count=32", "loop.workers=0", "--device", "cpu"]
    ae = ["autoencoder.widths=[8,8]", "autoencoder.norm_groups=4", "autoencoder.attention=false", "perceptual=null", "discriminator=null"]
    command("fit-ae", "--data", "shapes", *ae, "loop.steps=4", "loop.batch=8", "loop.report=2", *small, cwd=folder)
    command("encode-dataset", "--device", "cpu", cwd=folder)
    network = ["denoiser.widths=[8,8]", "denoiser.norm_groups=4", "denoiser.attention=[false,false]", "denoiser.head_dim=4"]
    command("fit-diffusion", *network, "loop.steps=4", "loop.batch=8", "loop.report=2", "--device", "cpu", cwd=folder)


def lengthen(file: Path, count: int) -> int:
    """So many reports after the run's own, each number a little off that of its last ones -> how many numbers a report has."""
    known: dict[str, Any] = {}
    for line in file.read_text().splitlines():
        known |= json.loads(line)
    values = {name: value for name, value in known.items() if isinstance(value, float)}
    random = np.random.default_rng(0)
    with file.open("w") as out:
        for step in range(1, count + 1):
            row = {
                name: value * factor for (name, value), factor in zip(values.items(), random.uniform(0.5, 1.5, len(values)), strict=True)
            }
            out.write(json.dumps({"step": step, **{name: known[name] for name in known if name not in (*values, "step")}, **row}) + "\n")
    return len(values)


def preview(folder: Path) -> None:
    """Pictures of steps, of noise."""
    random = np.random.default_rng(0)
    for number in range(PREVIEWS):
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(
            folder / f"{(number + 1) * 500:09d}.png", compress_level=0
        )


def clocked(folder: Path) -> dict[str, Any]:
    """The command's own seconds, those with its start, and those of the processor, start included; memory, and what it says."""
    began, spent = time.perf_counter(), processor_seconds()
    told = command("report", "runs/ldm", "--alone", "-q", cwd=folder)
    seconds, own = time.perf_counter() - began, processor_seconds() - spent
    return {**told, "with_start": round(seconds, 2), "processor_seconds": round(own, 2), "seconds": round(told["seconds"], 2)}


def of_the_report(folder: Path) -> float:
    """Seconds of the processor without the start."""
    began = time.process_time()
    report([str(folder / "runs/ldm")], folder / "alone.html", console=Console(quiet=True), alone=True)
    return time.process_time() - began


if __name__ == "__main__":
    main()
