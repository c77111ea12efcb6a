"""The README's picture, docs/mnist.png, of the grids that benchmarks/mnist.py made.

python benchmarks/picture.py
"""

from machine import RESULTS
from PIL import Image

GAP = 24  # pixels between the two grids
SIDE = 484


def main() -> None:
    """64 digits labelled as in the data on the left, 16 sevens on the right, equally high."""
    docs = RESULTS.parent.parent / "docs"
    docs.mkdir(exist_ok=True)
    grids = [Image.open(RESULTS / f"mnist-{name}.png").convert("L") for name in ("samples", "sevens")]
    whole = Image.new("L", (2 * SIDE + GAP, SIDE), 255)
    for place, grid in zip((0, SIDE + GAP), grids, strict=True):
        whole.paste(grid.resize((SIDE, SIDE), Image.Resampling.NEAREST), (place, 0))
    whole.save(docs / "mnist.png", optimize=True)


if __name__ == "__main__":
    main()
