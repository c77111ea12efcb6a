"""Pictures of another source than the sets that `LDMCTL_DATA` holds: square crops of the photographs that scikit-image and scikit-learn ship.

pip install scikit-image scikit-learn && python benchmarks/crops.py FOLDER

FOLDER gets `train/` and `val/`, 2,400 and 240 pictures of 64x64. The right fifth of each photograph is held out, so that no pixel of a held-out
crop is seen in training. A crop has a side of 64 to 160 pixels, and is shrunk.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random

from PIL import Image

PHOTOGRAPHS = {
    "skimage": ("data", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg"]),
    "sklearn": ("datasets/images", ["china.jpg", "flower.jpg"]),
}
SIDE, LEAST, MOST = 64, 64, 160
COUNTS = {"train": 300, "val": 30}  # of a photograph
HELD_OUT = 0.2


def photographs() -> list[Path]:
    """Where they lie; a package that is missing ends the command."""
    found = []
    for package, (below, names) in PHOTOGRAPHS.items():
        if (spec := find_spec(package)) is None or spec.origin is None:
            sys.exit(f"{package} is missing: pip install scikit-image scikit-learn")
        found += [Path(spec.origin).parent / below / name for name in names]
    return found


def make(folder: Path) -> None:
    """Write the pictures, the same ones each time."""
    random = Random(0)
    for file in photographs():
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        border = round(picture.width * (1 - HELD_OUT))
        for split, (left, right) in {"train": (0, border), "val": (border, picture.width)}.items():
            (folder / split).mkdir(parents=True, exist_ok=True)
            for number in range(COUNTS[split]):
                side = random.randint(LEAST, min(MOST, right - left, picture.height))
                x, y = random.randint(left, right - side), random.randint(0, picture.height - side)
                crop = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (x, y, x + side, y + side), reducing_gap=3)
                crop.save(folder / split / f"{file.stem}-{number:03d}.png")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
