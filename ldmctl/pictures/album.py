"""The folder that samples go to: which pictures are there already, whose they are, and what must not be touched.

A picture made by ldmctl says in its PNG text how it was made. Only such a file is ever replaced or deleted.
"""

import json
import os
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ldmctl.config.differences import flatten
from ldmctl.errors import DataError, MismatchError
from ldmctl.pictures.images import read
from ldmctl.pictures.png import GAP, read_png_text

KEY = "ldmctl"  # of the PNG text
SIGNATURE = b"\x89PNG\r\n\x1a\n"
OF_ONE = ("seed", "label")  # what the text says of one picture, beside what all of a command share
NAMED = {"model": "by another model, or another state of it", "autoencoder": "through another decoder"}


class Found(NamedTuple):
    """What is still to be made, and what is in the way of it."""

    missing: list[int]  # seeds
    others: list[Path]  # pictures that ldmctl made of another model, with other settings, or of another label under the same seed


def look(folder: Path, texts: Mapping[int, str], *, sides: tuple[int, int], overwrite: bool) -> Found:
    """What of the pictures `texts`, by seed, of `sides` (height, width) in pixels, a folder lacks.

    A MismatchError names a file there that ldmctl did not make and that would be replaced; without `overwrite` also pictures with which
    these would mix, or that they would replace.
    """
    files = {seed: folder / f"{seed:06d}.png" for seed in texts}
    missing = [seed for seed, text in texts.items() if overwrite or read_png_text(files[seed], sides=sides).get(KEY) != text]
    in_the_way = [files[seed] for seed in missing if is_foreign(files[seed])]
    if os.path.lexists(folder / "grid.png") and not is_own_grid(folder):
        in_the_way.append(folder / "grid.png")
    if in_the_way:
        also = f" So are {len(in_the_way) - 1} others." if len(in_the_way) > 1 else ""
        raise MismatchError(
            f"{in_the_way[0]} is there already and is none of ldmctl's samples, so it is not replaced.{also} Name another --out, or move it."
        )
    settings = _shared(next(iter(texts.values())))
    wanted = {files[seed]: text for seed, text in texts.items()}
    others = {}
    for file in made_in(folder):
        said = made_by(file) or ""
        if apart := differing(_shared(said), settings) or ("of another label" if said != wanted.get(file, said) else ""):
            others[file] = apart
    if others and not overwrite:
        counts = Counter(others.values()).most_common()
        told = "; ".join(f"{count} {apart}" for apart, count in counts[:3]) + (f"; and {len(counts) - 3} other kinds" if counts[3:] else "")
        many = f"{len(others)} pictures that do" if len(others) > 1 else "a picture that does"
        raise MismatchError(
            f"{folder} holds {many} not belong to these: {told}. Name another --out, or take --overwrite, which deletes "
            f"{'them' if len(others) > 1 else 'it'}."
        )
    return Found(missing, list(others))


def refuse_foreign(*files: Path) -> None:
    """A MismatchError if one of these files, which are to be replaced, is none that ldmctl wrote with a description of its rows."""
    for file in files:
        if is_foreign(file) and "Rows: " not in (made_by(file, "Description") or ""):
            raise MismatchError(
                f"{file} is there already and was not made by ldmctl, so it is not replaced. Name another --out, or move it."
            )


def remove(folder: Path, others: list[Path]) -> None:
    """Delete pictures that `look` found not to belong, and the grid of them."""
    for file in [*others, folder / "grid.png"] if others else []:
        file.unlink(missing_ok=True)


def made_in(folder: Path) -> list[Path]:
    """The numbered pictures of a folder that ldmctl made."""
    return [file for file in sorted(folder.glob("*.png")) if file.stem.isdecimal() and made_by(file) is not None]


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """How pictures with the settings `old` differ from those with `new`; nothing where they do not."""
    before, after = dict(flatten(old)), dict(flatten(new))
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    if "sampler.type" in changed:  # the keys of another sampler are others
        changed = [key for key in changed if key == "sampler.type" or not key.startswith("sampler.")]
    if named := [words for key, words in NAMED.items() if key in changed]:
        return named[0]
    return "with " + ", ".join(f"{key}={_short(before.get(key))} instead of {_short(after.get(key))}" for key in changed) if changed else ""


def made_by(file: Path, key: str = KEY) -> str | None:
    """What ldmctl wrote into a PNG of how it was made, read without its pixels, so of a file that was cut off too; None for other files."""
    try:
        with file.open("rb") as opened:
            if opened.read(8) != SIGNATURE:
                return None
            while len(head := opened.read(8)) == 8:
                length, kind = struct.unpack(">I4s", head)
                if kind in (b"IDAT", b"IEND") or length > 2**24:
                    return None
                said = _text(key, kind, opened.read(length + 4)[:length])
                if said is not None:
                    return said
    except OSError:
        pass
    return None


def is_foreign(file: Path) -> bool:
    """Whether something is there that ldmctl did not make. A file of nothing, as a power cut leaves it, is nobody's."""
    if not os.path.lexists(file):
        return False
    if made_by(file) is not None:
        return False
    try:
        with file.open("rb") as opened:
            begin = opened.read(64)
    except OSError:  # a folder, a link to nowhere, a file that may not be read
        return True
    return bool(begin.strip(b"\0")) and begin != SIGNATURE


def is_own_grid(folder: Path) -> bool:
    """Whether grid.png is ldmctl's: it says so, or it is an older one, which begins with a picture of the folder."""
    file = folder / "grid.png"
    if not is_foreign(file):
        return True
    if read_png_text(file):
        return False
    try:
        shown = read(file, channels=4)
        for picture in made_in(folder):
            pixels = read(picture, channels=4)
            height, width = pixels.shape[1:]
            lattice = all((side + GAP) % (one + GAP) == 0 for side, one in zip(shown.shape[1:], (height, width), strict=True))
            if lattice and torch.equal(shown[:, :height, :width], pixels):
                return True
    except DataError:
        pass
    return False


def _text(key: str, kind: bytes, data: bytes) -> str | None:
    """What a PNG's chunk says under a key."""
    found, _, rest = data.partition(b"\0")
    if found != key.encode():
        return None
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"iTXt" and len(rest) > 2:
        return rest[2:].split(b"\0", 2)[-1].decode("utf-8", "replace")  # after a language and a translated key
    return None


def _shared(text: str) -> dict[str, Any]:
    """What a picture's text says of how it and those beside it were made."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in said.items() if key not in OF_ONE} if isinstance(said, dict) else {}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:37]}..."
