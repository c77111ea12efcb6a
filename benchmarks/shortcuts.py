"""What an autoencoder learns in a few minutes with paths past its norms (autoencoder.shortcuts) and without them.

LDMCTL_DATA=FOLDER_WITH_clothing LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/shortcuts.py FOLDER [--presets default laptop-128]

A run is its preset cut short: no discriminator, shares of 0.35 and 0.65, a shorter warm-up and average, and a learning rate that falls to 0
within 800 or 1,200 steps. It is judged by all held-out photographs. Runs that FOLDER has are not trained again; the result keeps what it had of
other presets. `milliseconds` are those of the autoencoder's forward and backward on a step's pictures, taken in turn.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from hour import record
from machine import RESULTS, describe, keep, ldmctl
from photographs import numbers

from ldmctl import registry
from ldmctl.config.presets import compose
from ldmctl.config.schemas.verbs import VERBS

RUNS = {"default": 800, "laptop-128": 1200}  # steps by preset
WAYS = {"without": "autoencoder.shortcuts=false", "with": "autoencoder.shortcuts=true"}
SHORT = ["discriminator=null", "losses.shares={pixel: 0.35, perceptual: 0.65}", "loop.warmup=100", "loop.ema=0.995"]
VALIDATED = (200, 400, 800, 1200)


def one(folder: Path, preset: str, way: str) -> dict:
    """A short run, judged by the command itself."""
    run, steps = f"{preset}-{way}", RUNS[preset]
    if "judged" not in record(folder / run):
        often = [f"loop.steps={steps}", f"loop.preview={steps}", f"loop.save={steps}"]
        data = Path(os.environ.get("LDMCTL_DATA", "data")).absolute() / "clothing"
        ldmctl("fit-ae", "--config", preset, "--data", str(data), "--out", run, *often, *SHORT, WAYS[way], "-q", cwd=folder)
    rows = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    decibels = {row["step"]: round(row["val/psnr"], 2) for row in rows if row.get("step") in VALIDATED and "val/psnr" in row}
    judged = record(folder / run)["judged"]
    ends = {"end": numbers(judged, judged, "made"), "shrunk": numbers(judged["baseline"], judged, "baseline")}
    return {"steps": steps, "psnr_of_validations": decibels, **ends}


def milliseconds(preset: str, rounds: int = 30) -> dict[str, float]:
    """Of a forward and a backward of the autoencoder on as many parts as a step has: medians."""
    configs = {
        way: compose(VERBS["fit-ae"], config=preset, overrides=["dataset.type=folder", "dataset.path=photos", word])[0]
        for way, word in WAYS.items()
    }
    networks = {way: registry.build("autoencoder", config.autoencoder, image_channels=3) for way, config in configs.items()}
    loop, image = configs["with"].loop, configs["with"].image
    pictures = torch.rand(loop.batch, 3, image.patch, image.patch) * 2 - 1
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, network in networks.items():
            began = time.perf_counter()
            (network(pictures).image - pictures).square().mean().backward()
            times[way].append(time.perf_counter() - began)
    return {way: round(statistics.median(each[3:]) * 1e3, 1) for way, each in times.items()}


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
        found[preset] = {way: one(folder, preset, way) for way in WAYS} | {"milliseconds": milliseconds(preset)}
        keep("shortcuts", {"presets": found}, machine)


if __name__ == "__main__":
    main()
