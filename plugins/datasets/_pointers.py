"""Files of a few lines that Git LFS leaves in place of pictures which were not fetched."""

from collections.abc import Sequence
from pathlib import Path

from ldmctl.errors import DataError

from ._names import counted, shown
from ._tree import File

START = b"version https://git-lfs.github.com/spec/"
SIZES = range(64, 200)  # bytes of such a file


def apart(root: Path, pictures: Sequence[File]) -> tuple[list[File], list[str]]:
    """(the pictures without those files, a sentence on them). A DataError where nothing else is there."""
    found = {file.path for file in pictures if file.size in SIZES and _is_pointer(root / file.path)}
    if not found:
        return [*pictures], []
    are, them = ("is a pointer", "it") if len(found) == 1 else ("are pointers", "them")
    said = f"{counted(len(found), 'picture file')} {are} of Git LFS and no picture, the first {shown(min(found))}: `git lfs pull` fetches {them}."
    if len(found) == len(pictures):
        raise DataError(f"{root.absolute()}: {said}")
    return [file for file in pictures if file.path not in found], [said]


def _is_pointer(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(len(START)) == START
    except OSError:
        return False
