"""What an autoencoder learns in a few minutes with paths past its norms (autoencoder.shortcuts) and without them.

LDMCTL_DATA=FOLDER_WITH_clothing LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/shortcuts.py FOLDER [--presets default laptop-128]

A run is its preset cut short: no discriminator, shares of 0.35 and 0.65, a shorter warm-up and average, and a learning rate that falls to 0
within 800 or 1,200 steps. It is judged by all held-out photographs. Runs that FOLDER has are not trained again; the result keeps what it had of
other presets.
"""

import argparse
import json
import os
from pathlib import Path

from hour import record
from machine import RESULTS, describe, keep, ldmctl
from photographs import numbers

RUNS = {  # preset: steps, and the ways to run it
    "default": (
        800,
        {"without": [], "with": ["autoencoder.shortcuts=true"], "with, layer": ["autoencoder.shortcuts=true", "autoencoder.norm=layer"]},
    ),
    "laptop-128": (1200, {"without": ["autoencoder.shortcuts=false"], "with": ["autoencoder.shortcuts=true"]}),
}
SHORT = ["discriminator=null", "losses.shares={pixel: 0.35, perceptual: 0.65}", "loop.warmup=100", "loop.ema=0.995", "loop.report=100"]
VALIDATED = (200, 400, 800, 1200)


def one(folder: Path, preset: str, steps: int, way: str, words: list[str]) -> dict:
    """A short run, judged by the command itself."""
    run = "-".join([preset, *way.replace(",", "").split()])
    if "judged" not in record(folder / run):
        often = [f"loop.steps={steps}", f"loop.preview={steps}", f"loop.save={steps}"]
        data = Path(os.environ.get("LDMCTL_DATA", "data")).absolute() / "clothing"
        ldmctl("fit-ae", "--config", preset, "--data", str(data), "--out", run, *often, *SHORT, *words, "-q", cwd=folder)
    rows = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    rates = sorted(row["images_per_second"] for row in rows if "images_per_second" in row)
    decibels = {row["step"]: round(row["val/psnr"], 2) for row in rows if row.get("step") in VALIDATED and "val/psnr" in row}
    judged = record(folder / run)["judged"]
    ends = {"end": numbers(judged, judged, "made"), "shrunk": numbers(judged["baseline"], judged, "baseline")}
    return {"steps": steps, "images_per_second": rates[len(rates) // 2], "psnr_of_validations": decibels, **ends}


def main() -> None:
    """Each preset that was asked for, in each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--presets", nargs="+", choices=RUNS, default=list(RUNS))
    given = parser.parse_args()
    machine, folder = describe(), given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    kept = RESULTS / "shortcuts.json"
    found = json.loads(kept.read_text())["presets"] if kept.exists() else {}
    for preset in given.presets:
        steps, ways = RUNS[preset]
        found[preset] = {way: one(folder, preset, steps, way, words) for way, words in ways.items()}
        keep("shortcuts", {"presets": found}, machine)


if __name__ == "__main__":
    main()
