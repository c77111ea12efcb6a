"""How long judging takes at 64x64: 5,000 samples against 10,000 references, as a user would.

python benchmarks/judging_at_64.py DATA WEIGHTS                          # clothing below DATA; into results/judging_speed.json, as `at_64` and
python benchmarks/judging_at_64.py DATA WEIGHTS --extractors fitted      # `at_64_fitted`: torchvision's SqueezeNet, and `fitted`, both or one

SqueezeNet looks at 64 pixels a side. No folder of 25,000 pictures is at hand: they are squares cut by lot out of the clothing pictures shrunk to 96
pixels, about six of each, kept as PNG in a folder for each class. Samples are others of these, so the distances themselves say nothing.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, describe, keep
from PIL import Image
from process import command

from ldmctl.config.resolve import plugin_config
from ldmctl.evaluation import extractors
from ldmctl.training.engine import Engine

ENGINE = Engine(torch.device("cpu"), torch.float32)
SIDE, SHRUNK = 64, 96
KEPT_AS = {"torchvision": "at_64", "fitted": "at_64_fitted"}
COUNTS = {"samples": 5000, "pictures/train": 15_000, "pictures/val": 5000}


def main() -> None:
    """Make the pictures, judge twice, write beside what is there, with the machine that it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--extractors", nargs="+", default=list(KEPT_AS), choices=list(KEPT_AS))
    given = parser.parse_args()
    machine = describe()
    for name in given.extractors:
        found = {"machine": machine, **judged(given.data.absolute(), given.weights.absolute(), name)}
        before = json.loads((RESULTS / "judging_speed.json").read_text())
        keep("judging_speed", {**before, KEPT_AS[name]: found}, before["machine"])


def judged(data: Path, weights: Path, extractor: str) -> dict[str, Any]:
    """Seconds and memory of the command fresh and again, and how many pictures in a second of a processor the network sees at 64 and at 224 pixels."""
    found: dict[str, Any] = {"pictures": f"{SIDE}x{SIDE}, cut by lot out of the clothing pictures shrunk to {SHRUNK} pixels", "workers": 0}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        cut_out(data / "clothing/train", folder)
        words = [
            "eval-samples",
            "--samples",
            "samples",
            "-n",
            "5000",
            "--against",
            "pictures",
            "--extractor",
            extractor,
            "--device",
            "cpu",
        ]
        words += [f"extractor.weights={weights}", f"extractor.size={SIDE}"] if extractor == "torchvision" else []
        words += [f"image.size={SIDE}", "nearest=false", "workers=0"]
        for name in ("compared", "compared_again"):
            began, spent = time.perf_counter(), processor_seconds()
            told = command(*words, "--out", folder / "out", cwd=folder)
            seconds, own = time.perf_counter() - began, processor_seconds() - spent
            found[name] = {"seconds": round(seconds, 1), "processor_seconds": round(own, 1), "resident_mib": told["resident_mib"]}
        found |= {"references": told["references"], "count": told["count"]}
    if extractor == "fitted":
        return found
    return found | {"pictures_per_processor_second": {str(size): seen_per_second(weights, size) for size in (SIDE, 224)}}


def processor_seconds() -> float:
    """Of the commands that have ended, which others on the machine change little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cut_out(pictures: Path, folder: Path) -> None:
    """So many squares of 64 pixels in each folder, in a folder for each class, of the pictures in turn."""
    random, number = np.random.default_rng(0), 0
    rows = [json.loads(line) for line in (pictures / "metadata.jsonl").open()]
    small = [
        Image.open(pictures / row["file_name"]).convert("RGB").resize((SHRUNK, SHRUNK), Image.Resampling.BOX, reducing_gap=2)
        for row in rows
    ]
    for name, count in COUNTS.items():
        for index in range(count):
            left, top = random.integers(0, SHRUNK - SIDE + 1, 2).tolist()
            part = small[number % len(small)].crop((left, top, left + SIDE, top + SIDE))
            place = folder / name / rows[number % len(small)]["label"]
            place.mkdir(parents=True, exist_ok=True)
            part.save(place / f"{index:06d}.png", compress_level=1)
            number += 1


def seen_per_second(weights: Path, size: int) -> float:
    """Pictures of 64 pixels that SqueezeNet sees in a second of a processor at this size, in batches of 64."""
    config = plugin_config("extractor", {"type": "torchvision", "weights": str(weights), "size": size})
    extractor = extractors.build(config, ENGINE, image_channels=3, size=64, classes=[], encoder=None)
    image = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        extractor(image)
        began = time.process_time()
        extractor(image)
        return round(64 / (time.process_time() - began), 1)


if __name__ == "__main__":
    main()
