"""The folder that samples go to: which pictures are there already, whose they are, and what must not be touched.

A picture made by ldmctl says in its PNG text how it was made. Only such a file is ever replaced or deleted.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldmctl.config.differences import flatten
from ldmctl.config.seeds import Seeds
from ldmctl.errors import DataError, MismatchError
from ldmctl.pictures.npz import is_own_npz
from ldmctl.pictures.opening import opened
from ldmctl.pictures.pillow import load
from ldmctl.pictures.png import GAP, read_png_text
from ldmctl.pictures.png_text import KEY, breaks_off, made_by, said_by
from ldmctl.storage.leftovers import sweep

OF_ONE = ("seed", "label", "prompt", "token", "learned")  # what the text says of one picture, beside what all of a command share
OTHER = {"label": "of another label", "prompt": "of another prompt", "learned": "of a word or class that was learned otherwise"}
NAMED = {"model": "by another model, or another state of it", "autoencoder": "through another decoder"}
TRACE = ("trace.png", "trace.gif", "trace.webp")  # whose they are, the first one says
SHELF = 1000  # pictures of a command above which they go into folders of so many, 000000/, 001000/, ...: those of seeds below 1,000 first


class Found(NamedTuple):
    """What is still to be made, and what is in the way of it."""

    missing: list[int]  # places in the seeds, counted from 0
    others: list[Path]  # pictures that ldmctl made of another model, with other settings, or of another label under the same seed


def is_shelved(count: int) -> bool:
    """Whether the pictures of a command that makes so many go onto shelves."""
    return count > SHELF


def file_of(folder: Path, seed: int, *, shelved: bool) -> Path:
    """Where the picture of a seed lies, in the folder itself or on its shelf; where there is none yet, on the shelf if it is `shelved`."""
    flat = folder / f"{seed:06d}.png"
    on_shelf = folder / f"{seed // SHELF * SHELF:06d}" / flat.name
    if os.path.lexists(flat):
        return flat
    return on_shelf if shelved or os.path.lexists(on_shelf) else flat


def look(folder: Path, seeds: Seeds, text_of: Callable[[int], str], *, sides: tuple[int, int], overwrite: bool) -> Found:
    """What a folder lacks of the pictures of these seeds, of `sides` (height, width) in pixels, whose texts are those of their places.
    Files are looked at one by one.

    A MismatchError names a file there that ldmctl did not make and that would be replaced; without `overwrite` also pictures with which
    these would mix, or that they would replace.
    """
    settings = shared(text_of(0))
    missing, others = [], {}
    in_the_way: dict[Path, None] = {}
    for position, seed in enumerate(seeds):
        file = file_of(folder, seed, shelved=is_shelved(len(seeds)))
        said = said_by(file, KEY)
        belongs = said.text is not None and said.text == text_of(position)
        if overwrite or not (belongs and said.whole and said.sides == sides):
            missing.append(position)
        if said.text is None and (blocking := file if is_foreign(file) else _in_place_of(file.parent)):
            in_the_way[blocking] = None
        elif said.text is not None and not belongs:
            others[file] = _apart(said.text, settings) or _otherwise(said.text, text_of(position))
    for name, is_own in {"grid.png": is_own_grid, "samples.npz": is_own_npz}.items():
        if os.path.lexists(folder / name) and not is_own(folder / name):
            in_the_way[folder / name] = None
    if in_the_way:
        more = len(in_the_way) - 1
        also = f" So {'are' if more > 1 else 'is'} {more} other{'s' * (more > 1)}." if more else ""
        raise MismatchError(
            f"{next(iter(in_the_way))} is there already and is none of ldmctl's samples, so it is not replaced.{also} Name another --out, or move it."
        )
    for file in pictures_in(folder):
        seed = int(file.stem)
        if seed in seeds and file_of(folder, seed, shelved=True) == file:
            continue
        if (told := made_by(file)) is not None and (apart := _apart(told, settings)):
            others[file] = apart
    if others and not overwrite:
        counts = Counter(others.values()).most_common()
        told = "; ".join(f"{count} {apart}" for apart, count in counts[:3]) + (f"; and {len(counts) - 3} other kinds" if counts[3:] else "")
        many = f"{len(others)} pictures that do" if len(others) > 1 else "a picture that does"
        raise MismatchError(
            f"{folder} holds {many} not belong to these: {told}. Name another --out, or take --overwrite, which deletes "
            f"{'them' if len(others) > 1 else 'it'}."
        )
    return Found(missing, sorted(others))


def refuse_foreign(*files: Path) -> None:
    """A MismatchError if one of these files, which are to be replaced, is none that ldmctl wrote with a description of its rows.

    What a killed command left half written of them is deleted.
    """
    for file in files:
        sweep(file.parent, file.name)
        if is_foreign(file) and "Rows: " not in (made_by(file, "Description") or ""):
            raise MismatchError(
                f"{file} is there already and was not made by ldmctl, so it is not replaced. Name another --out, or move it."
            )


def remove(folder: Path, others: list[Path]) -> None:
    """Delete pictures that `look` found not to belong, what was made of them together, and shelves that are empty then."""
    if not others:
        return
    strip = folder / TRACE[0]
    traces = [folder / name for name in TRACE] if os.path.lexists(strip) and not is_foreign(strip) else []
    for file in [*others, folder / "grid.png", folder / "samples.npz", *traces]:
        file.unlink(missing_ok=True)
    for shelf in {file.parent for file in others} - {folder}:
        with suppress(OSError):  # what is not empty stays
            shelf.rmdir()


def pictures_in(folder: Path) -> Iterator[Path]:
    """The numbered pictures of a folder and of its shelves, whoever made them."""
    yield from (file for file in _entries(folder) if file.suffix == ".png" and file.stem.isdecimal())
    for shelf in shelves_in(folder):
        pictures = (file for file in _entries(shelf) if file.suffix == ".png" and file.stem.isdecimal())
        yield from (file for file in pictures if f"{int(file.stem) // SHELF * SHELF:06d}" == shelf.name)


def shelves_in(folder: Path) -> Iterator[Path]:
    """The folders of pictures in a folder that are named as shelves are."""
    yield from (each for each in _entries(folder) if each.name.isdecimal() and int(each.name) % SHELF == 0 and each.is_dir())


def _in_place_of(shelf: Path) -> Path | None:
    """What lies where a folder should, if anything but a folder does."""
    return shelf if os.path.lexists(shelf) and not shelf.is_dir() else None


def _entries(folder: Path) -> Iterable[Path]:
    return sorted(folder.iterdir())


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """How pictures with the settings `old` differ from those with `new`; nothing where they do not."""
    before, after = dict(flatten(old)), dict(flatten(new))
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    if "sampler.type" in changed:  # the keys of another sampler are others
        changed = [key for key in changed if key == "sampler.type" or not key.startswith("sampler.")]
    if named := [words for key, words in NAMED.items() if key in changed]:
        return named[0]
    return "with " + ", ".join(f"{key}={_short(before.get(key))} instead of {_short(after.get(key))}" for key in changed) if changed else ""


def is_foreign(file: Path) -> bool:
    """Whether something is there that ldmctl did not make. A file of nothing, or cut off before its pixels, is nobody's."""
    if not os.path.lexists(file):
        return False
    if made_by(file) is not None:
        return False
    try:
        with file.open("rb") as opened:
            begin = opened.read(64)
    except OSError:  # a folder, a link to nowhere, a file that may not be read
        return True
    return bool(begin.strip(b"\0")) and not breaks_off(file)


def is_own_grid(file: Path) -> bool:
    """Whether grid.png is ldmctl's: it says so, or it is an older one, which begins with a picture of the folder."""
    if not is_foreign(file):
        return True
    if read_png_text(file):
        return False
    try:
        shown = pixels_of(file)
        for picture in pictures_in(file.parent):
            if made_by(picture) is None:
                continue
            pixels = pixels_of(picture)
            height, width = pixels.shape[:2]
            lattice = all((side + GAP) % (one + GAP) == 0 for side, one in zip(shown.shape[:2], (height, width), strict=True))
            if lattice and np.array_equal(shown[:height, :width], pixels):
                return True
    except DataError:
        pass
    return False


def pixels_of(file: Path) -> np.ndarray[Any, Any]:
    """uint8 [H,W,4] of a picture; DataError where it cannot be decoded."""
    return np.asarray(load(opened(file), channels=4))


def _apart(text: str, settings: dict[str, Any]) -> str:
    """How a picture with this text differs from those with these settings; nothing where it does not."""
    said = shared(text)
    return "" if said == settings else differing(said, settings)


def _otherwise(text: str, wanted: str) -> str:
    """How two pictures of one seed and the same settings differ."""
    old, new = json.loads(text), json.loads(wanted)
    kind = next((words for key, words in OTHER.items() if old.get(key) != new.get(key)), OTHER["label"])
    return kind


def shared(text: str) -> dict[str, Any]:
    """What a picture's text says of how it and those beside it were made."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in said.items() if key not in OF_ONE} if isinstance(said, dict) else {}


def _short(value: Any) -> str:
    text = json.dumps(value)
    if len(text) < 40:
        return text
    return json.dumps(f"{value[:12]}...") if isinstance(value, str) else f"{text[:37]}..."
