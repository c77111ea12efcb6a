"""CelebAMask-HQ as its archive is unpacked: a mask for each part of each face, merged into one label map, and attributes as captions.

`CelebA-HQ-img/0.jpg`, `CelebAMask-HQ-mask-anno/0/00000_skin.png` and so on, 2,000 faces
a folder, `CelebAMask-HQ-attribute-anno.txt`. Parts are numbered and painted over each other
in the order of the authors' `g_mask.py`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ldmctl.errors import DataError
from ldmctl.pictures.pillow import load, opened

from . import _captions
from ._tree import File

MASKS, PICTURES, ATTRIBUTES = "CelebAMask-HQ-mask-anno", "CelebA-HQ-img", "CelebAMask-HQ-attribute-anno.txt"
PARTS = [
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
]
CLASSES = ["background", *PARTS]
MASK = re.compile(rf"(\d+)_({'|'.join(PARTS)})\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Parts:
    """The masks of one face, merged when it is read as an array: uint8 [H,W], the numbers of CLASSES."""

    folder: Path
    number: int

    @property
    def filename(self) -> str:
        """Where the masks lie, for a sentence."""
        return str(self.folder / f"{self.number:05d}_*.png")

    @property
    def files(self) -> list[Path]:
        """The masks that there are, in the order of PARTS."""
        every = (self.folder / f"{self.number:05d}_{part}.png" for part in PARTS)
        return [file for file in every if file.is_file()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        merged: np.ndarray[Any, Any] | None = None
        for file in self.files:
            mask = np.asarray(load(opened(file), channels=1, background="black", profile="keep")) > 0
            merged = np.zeros(mask.shape, np.uint8) if merged is None else merged
            if mask.shape != merged.shape:
                raise DataError(
                    f"{file} is {mask.shape[1]}x{mask.shape[0]} pixels, the other masks of this face {merged.shape[1]}x{merged.shape[0]}."
                )
            merged[mask] = CLASSES.index(file.stem.partition("_")[2])
        if merged is None:
            raise DataError(f"There are no masks {self.filename}.")
        return merged if dtype is None else merged.astype(dtype)


@dataclass
class Faces:
    """The masks of a folder, by picture."""

    files: set[str] = field(default_factory=set)  # masks below the root, which are no pictures
    of: dict[str, Parts] = field(default_factory=dict)
    folder: str = ""  # of the masks, for a sentence; '' where no picture has any
    orphans: list[str] = field(default_factory=list)  # masks of no picture


def find(root: Path, pictures: Sequence[File], files: Sequence[File]) -> Faces:
    """The masks of a folder that is CelebAMask-HQ, or its folder of pictures; none of any other."""
    out = Faces()
    top = next((file.path[: file.path.index(MASKS)] for file in files if f"/{MASKS}/" in f"/{file.path}"), None)
    base = root / top if top is not None else root.resolve().parent
    if top is None and not (root.resolve().name == PICTURES and (base / MASKS).is_dir()):
        return out
    if top is not None:
        out.files |= {file.path for file in files if file.path.startswith(f"{top}{MASKS}/")}
    faces: dict[int, Path] = {}
    for folder in sorted(each for each in (base / MASKS).iterdir() if each.is_dir()):
        with os.scandir(folder) as listing:
            faces |= {int(found[1]): folder for entry in listing if (found := MASK.fullmatch(entry.name))}
    inside = f"{top}{PICTURES}/" if top is not None else ""
    for file in pictures:
        stem = file.path.removeprefix(inside).partition(".")[0]
        if file.path.startswith(inside) and stem.isdecimal() and int(stem) in faces:
            out.of[file.path] = Parts(faces[int(stem)], int(stem))
    used = {each.number for each in out.of.values()}
    if used and top is not None:
        out.orphans = [str(faces[number] / f"{number:05d}_*.png") for number in sorted(faces.keys() - used)]
    out.folder = "" if not used else f"../{MASKS}/" if top is None else f"{top}{MASKS}/"
    return out


def captions(root: Path, files: Sequence[File], pictures: Sequence[File]) -> tuple[dict[str, str], str]:
    """(the attributes of each face that has any, by picture; the path of their file below the root, '' where it lies above or is not there)."""
    inside = next((file.path for file in files if file.path.rpartition("/")[2] == ATTRIBUTES), "")
    beside = root.resolve().parent / ATTRIBUTES
    if not inside and not (root.resolve().name == PICTURES and beside.is_file()):
        return {}, ""
    lines = [line.split() for line in _captions.read(root / inside if inside else beside)[0].splitlines()]
    names = lines[1] if len(lines) > 1 else []
    faces: dict[str, str] = {}
    for line, row in enumerate(lines[2:], start=3):
        if row and (len(row) != len(names) + 1 or set(row[1:]) - {"1", "-1"}):
            raise DataError(
                f"{root / inside if inside else beside}, line {line}: a file name and {len(names)} times 1 or -1 were expected."
            )
        if row:
            faces[row[0]] = ", ".join(name.replace("_", " ") for name, has in zip(names, row[1:], strict=True) if has == "1")
    by: dict[str, list[str]] = defaultdict(list)
    for file in pictures:
        by[file.path.rpartition("/")[2]].append(file.path)
    top = f"{inside.removesuffix(ATTRIBUTES)}{PICTURES}/" if inside else ""
    return {path: text for name, text in faces.items() for path in by.get(name, ()) if text and path.startswith(top)}, inside
