"""What a PNG's text says of the picture: a sample, or a sheet that shows several."""

import json
from pathlib import Path

from ldmctl.pictures.png import read_png_text
from ldmctl.pictures.png_text import KEY

SEVERAL = {"grid", "trace"}  # keys in the text of a file of several samples
SHEET = "Rows: "  # how the description of every other sheet begins


def said_of(file: Path) -> dict[str, object]:
    """What a PNG's text says of how it was made: ldmctl's, and a plain entry `label`."""
    return _said(read_png_text(file))


def is_sheet(file: Path) -> bool:
    """Whether ldmctl wrote a file to show several pictures: a grid, a trace (the PNG says so of the GIF and the WebP beside it), pairs."""
    moves = file.stem == "trace" and file.suffix in (".gif", ".webp")
    texts = read_png_text(file.with_suffix(".png") if moves else file)
    return bool(SEVERAL & set(_said(texts))) or texts.get("Description", "").startswith(SHEET)


def _said(texts: dict[str, str]) -> dict[str, object]:
    try:
        own = json.loads(texts.get(KEY, "{}"))
    except (ValueError, RecursionError):
        own = {}
    return {**({"label": texts["label"]} if "label" in texts else {}), **(own if isinstance(own, dict) else {})}
