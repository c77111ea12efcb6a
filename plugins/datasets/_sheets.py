"""Pictures that ldmctl made of several others: grids, traces, and sheets of pairs. They lie beside samples and are none."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ._names import are, counted, listed, shown
from ._tree import File

NAMES = {"grid", "trace", "closest", "alike", "contact", "verdict", "latents"}  # others are not looked into
ENDINGS = {".png", ".gif", ".webp"}  # a trace.png speaks for the animations beside it
HEAD = 1 << 20  # bytes, in which ldmctl has said what a PNG is
GRIDS = re.compile(r"(^|/)(?:txt2img|img2img|extras)-grids/", re.IGNORECASE)  # folders of a well-known program
SMALL = re.compile(r"(^|/)(?:thumbs?|thumbnails?)[\d_x]*/", re.IGNORECASE)
SHEET = re.compile(rb'(?:tEXt|iTXt)(?:ldmctl\0+[^\0]*?(?<!\\)"(?:grid|trace)": \[|Description\0+Rows: )')


def apart(root: Path, pictures: list[File]) -> tuple[list[File], list[str]]:
    """(the pictures without those sheets, what is said of it)."""
    grids = [file.path for file in pictures if GRIDS.search(file.path)]
    sheets = [file.path for file in pictures if _is_named_so(file.path) and _is_sheet(root / file.path)]
    small = _thumbnails(pictures)
    left = {*grids, *sheets, *small}
    kept = [file for file in pictures if file.path not in left] if left else pictures
    said = []
    if sheets:
        left_out, made = ("are left out", "them") if len(sheets) > 1 else ("is left out", "it")
        said.append(f"{listed(sheets)} {left_out}: ldmctl made {made} of other pictures.")
    if grids:
        said.append(f"{counted(len(grids), 'grid')} of several pictures {are(len(grids))} left out, the first {shown(grids[0])}.")
    if small:
        said.append(
            f"{counted(len(small), 'thumbnail')} {are(len(small))} left out, the first {shown(small[0])}: the pictures are there, too."
        )
    return kept, said


def _thumbnails(pictures: Sequence[File]) -> list[str]:
    """The pictures in folders of thumbnails, where each has the name of a picture outside of them and all are of less than half the bytes."""
    small = {_stem(file.path): file for file in pictures if SMALL.search(file.path)}
    large = {_stem(file.path): file for file in pictures if not SMALL.search(file.path)} if small else {}
    if (
        not small
        or not small.keys() <= large.keys()
        or 2 * sum(file.size for file in small.values()) > sum(large[name].size for name in small)
    ):
        return []
    return [file.path for file in pictures if SMALL.search(file.path)]


def _stem(path: str) -> str:
    return os.path.splitext(path.rpartition("/")[2])[0].casefold()


def _is_named_so(path: str) -> bool:
    stem, suffix = os.path.splitext(path.rpartition("/")[2])
    return stem in NAMES and suffix in ENDINGS


def _is_sheet(file: Path) -> bool:
    """Whether the text of a PNG says so; it stands before the pixels, which may be too many to be decoded."""
    try:
        with file.with_suffix(".png").open("rb") as opened:
            head = opened.read(HEAD)
    except OSError:
        return False
    return head.startswith(b"\x89PNG") and SHEET.search(head.partition(b"IDAT")[0]) is not None
