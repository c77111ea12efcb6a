"""Seconds and peak memory of `ldmctl data check` on a folder of many pictures.

python benchmarks/data_check.py                     # 10,000 JPEG files of 256x256; writes results/data_check.json
python benchmarks/data_check.py --count 500 --print

The pictures are smooth random colours with some noise, no two alike but for one in a hundred, which is saved a second time at another quality, in ten class
folders; making them is not counted.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, keep
from PIL import Image
from process import command, processor_seconds

SIDE = 256


def main() -> None:
    """Make the folder, check it, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory() as name:
        twins = write(Path(name) / "pictures", asked.count)
        before = processor_seconds()
        done = command("data", "check", "pictures", "--out", "checked", "-q", cwd=Path(name))
    found: dict[str, Any] = {
        "files": asked.count,
        "side": SIDE,
        **{key: done[key] for key in ("seconds", "resident_mib")},
        "processor_seconds": round(processor_seconds() - before, 2),
        "saved_twice": twins,
        "near_duplicates": done["duplicates"],
    }
    if asked.print:
        print(json.dumps(found, indent=2)[:3000])
    else:
        keep("data_check", found, machine)


def write(folder: Path, count: int) -> int:
    """`count` pictures in ten folders, the last hundredth of them those of the first again -> how many these are."""
    random = np.random.default_rng(0)
    twins = count // 100
    for number in range(count - twins):
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noise = random.integers(-8, 9, (SIDE, SIDE, 1))
        picture = Image.fromarray((np.asarray(small, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8))
        place = folder / f"class-{number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number:06d}.jpg", quality=90)
        if number < twins:
            picture.save(place / f"{number:06d}-again.jpg", quality=70)
    return twins


if __name__ == "__main__":
    main()
