"""The pictures of docs/guides/conditions.md, of what benchmarks/conditions.py made in a folder.

python benchmarks/conditions_picture.py FOLDER --words words-2400 [--map map-800] [--lowres lowres-800] [--inpaint inpaint-1000]

docs/prompts.png: prompts of combinations that training never saw, and six samples of each. docs/conditions.png: in columns, maps and what was
painted by them; small pictures, what was made of them, and the pictures that they were made from; pictures with a hole, the hole painted, the picture.
"""

import argparse
from pathlib import Path

from conditions import caption_prompts
from machine import RESULTS
from PIL import Image, ImageDraw, ImageFont

DOCS = RESULTS.parent.parent / "docs"
SCALE, GAP, TEXT = 2, 4, 350  # of pixels; pixels between pictures; pixels for a prompt
CELL = 32 * SCALE
ROWS, EACH, COLUMNS = 8, 6, 10
SHADES = [(30, 30, 30), (230, 120, 60), (70, 150, 220), (90, 190, 110), (220, 200, 80)]  # of the classes of a map


def main() -> None:
    """Both pictures, of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name in ("words", "map", "lowres", "inpaint"):
        parser.add_argument(f"--{name}", metavar="RUN")
    given = parser.parse_args()
    if given.words:
        prompts(given.folder / f"judged/{given.words}-2").save(DOCS / "prompts.png", optimize=True)
    shown = []
    if given.map:
        shown += [row(given.folder / "maps", shades=True), row(given.folder / f"judged/{given.map}-2")]
    if given.lowres:
        shown += [row(given.folder / "small"), row(given.folder / f"judged/{given.lowres}"), row(given.folder / "real")]
    if given.inpaint:
        shown += [
            row(given.folder / "real", hole=True),
            row(given.folder / f"judged/{given.inpaint}-condition"),
            row(given.folder / "real"),
        ]
    if shown:
        stacked(shown).save(DOCS / "conditions.png", optimize=True)


def prompts(folder: Path) -> Image.Image:
    """A row for each of ROWS prompts: the words, then EACH samples."""
    said = caption_prompts()
    chosen = [round(index * (len(said) - 1) / (ROWS - 1)) for index in range(ROWS)]
    sheet = Image.new("RGB", (TEXT + EACH * (CELL + GAP), ROWS * (CELL + GAP) - GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, index in enumerate(chosen):
        top = number * (CELL + GAP)
        pen.text((0, top + CELL / 2), said[index], "black", font, anchor="lm")
        for column in range(EACH):
            sheet.paste(enlarged(folder / f"{index + column * len(said):06d}.png"), (TEXT + column * (CELL + GAP), top))
    return sheet


def row(folder: Path, *, shades: bool = False, hole: bool = False) -> list[Image.Image]:
    """The first COLUMNS pictures of a folder; maps in colours, a hole in the middle in grey."""
    return [enlarged(folder / f"{index:06d}.png", shades=shades, hole=hole) for index in range(COLUMNS)]


def enlarged(file: Path, *, shades: bool = False, hole: bool = False) -> Image.Image:
    """A picture CELL pixels wide."""
    picture = Image.open(file)
    if shades:
        picture = picture.convert("P")
        picture.putpalette([value for colour in SHADES for value in colour])
    picture = picture.convert("RGB")
    if hole:
        picture.paste((128, 128, 128), (8, 8, 24, 24))
    return picture.resize((CELL, CELL), Image.Resampling.NEAREST)


def stacked(rows: list[list[Image.Image]]) -> Image.Image:
    """Rows under each other."""
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) - GAP, len(rows) * (CELL + GAP) - GAP), "white")
    for number, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * (CELL + GAP), number * (CELL + GAP)))
    return sheet


if __name__ == "__main__":
    main()
