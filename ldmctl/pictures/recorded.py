"""What the file of one picture says of how it was made: enough to make it again.

Beside its settings (`KEY`), it holds check sums of these and of its pixels (`SUMS`), so that an edited file is known. It does not say
where run and decoder lie, so that equal pictures are equal files; the grid beside it names them (`ORIGIN`). Files that a picture was started
from, painted or guided by are named as the command did, beside hashes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ldmctl.errors import DataError, MismatchError
from ldmctl.pictures.png_text import made_by, said_by

if TYPE_CHECKING:
    from torch import Tensor

SUMS = "ldmctl-sums"  # of the PNG text of a picture
ORIGIN = "ldmctl-from"  # of the PNG text of a grid
DIGITS = 16  # of a check sum, hexadecimal
WAYS = "Make the picture by its settings instead: ldmctl sample --seeds N and the options that you want."
KINDS: dict[str, Any] = {  # what every picture's text says
    "seed": int,
    "label": str | None,
    "model": str,
    "autoencoder": str,
    "precision": str,
    "sampler": dict,
    "steps": int,
}


class Recorded(NamedTuple):
    """One picture's file and what it says."""

    file: Path
    text: str  # as it stands there
    said: dict[str, Any]
    sums: dict[str, Any] | None  # None in pictures made before there were any
    run: str | None  # as the command named it whose grid lies beside it
    ae: str | None


def sums_of(text: str, picture: Tensor) -> str:
    """The check sums of a picture [C,H,W] uint8 and its text, one JSON object."""
    pixels = f"{tuple(picture.shape)}".encode() + picture.contiguous().numpy().tobytes()
    return json.dumps({"pixels": _sum(pixels), "text": _sum(text.encode())}, sort_keys=True)


def recorded(file: Path) -> Recorded:
    """What a picture says. A file that is none of ldmctl's samples is a DataError, one whose text was changed a MismatchError."""
    if not file.is_file():
        raise DataError(f"There is no picture {file} to make again.")
    text = said_by(file).text
    if text is None:
        raise DataError(
            f"{file} does not say how it was made, so it cannot be made again: only PNGs that ldmctl sample wrote do, and other programs "
            "drop that text when they save one."
        )
    said, written = _object(text, file), made_by(file, SUMS)
    sums = None if written is None else _object(written, file)
    if "grid" in said or "trace" in said:
        raise DataError(f"{file} shows many pictures. Name one of them, a file that is named by its seed.")
    if sums is not None and sums.get("text") != _sum(text.encode()):
        raise MismatchError(f"The text of {file} was edited after the picture was made, so it no longer says how that was. {WAYS}")
    if not all(key in said and isinstance(said[key], kind) for key, kind in KINDS.items()):
        raise MismatchError(f"The text of {file} lacks the seed, the model or settings, so it was edited. {WAYS}")
    return Recorded(file, text, said, sums, *_origin(file))


def likeness(picture: Recorded, made: Path) -> tuple[bool, str]:
    """(whether the file made again is the same, what to say of it)."""
    if picture.file.read_bytes() == made.read_bytes():
        return True, f"{made} is {picture.file} again, byte for byte."
    sums = made_by(made, SUMS)
    if picture.sums is not None and sums is not None and picture.sums.get("pixels") == _object(sums, made).get("pixels"):
        return False, f"{made} has the pixels that {picture.file} had when it was made; that file has been changed or damaged since."
    return False, (
        f"{made} is not the same as {picture.file}. Model and settings are, so it was made on another kind of device or by another version "
        "of torch, or its pixels were edited since."
    )


def _origin(file: Path) -> tuple[str | None, str | None]:
    """(run, ae) as the grid names them that lies beside a picture, or beside its shelf."""
    for grid in (file.with_name("grid.png"), file.absolute().parent.with_name("grid.png")):
        if (found := made_by(grid, ORIGIN)) is not None:
            named = _object(found, grid)
            return named.get("run"), named.get("ae")
    return None, None


def _object(text: str, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise MismatchError(f"The text of {file} is no JSON object, so it was edited. {WAYS}")
    return found


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]
