"""All pictures of a command in one .npz, as the tools that compute FID read it: uint8 [N,H,W,C] under the name arr_0.

It is written row by row, so that it may be larger than the memory.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ldmctl.storage.atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file knows, so that equal pictures are equal bytes


def write_npz(path: Path, pictures: Iterable[Tensor], shape: tuple[int, int, int, int], note: str) -> None:
    """Write uint8 pictures [C,H,W], N of them of `shape` [N,H,W,C], all or nothing. `note` is JSON, by which ldmctl knows its own."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = note.encode()
        with archive.open(zipfile.ZipInfo("arr_0.npy", EPOCH), "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for picture in pictures:
                entry.write(picture.permute(1, 2, 0).contiguous().numpy().tobytes())


def is_own_npz(path: Path) -> bool:
    """Whether ldmctl wrote this file, or nobody did: one of nothing, as a power cut leaves it."""
    try:
        with path.open("rb") as file:
            if not file.read(64).strip(b"\0"):
                return True
        with zipfile.ZipFile(path) as archive:
            return "npz" in json.loads(archive.comment)
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile):
        return False
