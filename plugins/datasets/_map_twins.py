"""Folders that may hold maps though their names do not say so: their pictures are called as those of another folder, and are of numbers or grey."""

import itertools
import posixpath
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ldmctl.errors import DataError
from ldmctl.pictures.pillow import opened

from ._map_names import key_of
from ._names import shown
from ._tree import File

FOLDERS = 12  # of more, each is rather a class
ALIKE = 0.9  # share of names that two folders have in common
PLAIN = ("1", "P", "L", "I;16")  # modes of maps


def doubts(root: Path, pictures: Sequence[File]) -> list[str]:
    """A warning for each such folder, which is trained on like others."""
    folders = {file.folder for file in pictures}
    above = posixpath.commonpath(folders) if folders else ""
    start = above.count("/") + 1 if above else 0
    names = {folder: (folder.split("/")[start:] or [""])[0] for folder in folders}
    if not 2 <= len(set(names.values())) <= FOLDERS:
        return []
    files: dict[str, dict[str, File]] = defaultdict(dict)
    for file in pictures:
        files[names[file.folder]].setdefault(key_of("", file)[1], file)
    found: dict[str, str] = {}
    for one, other in itertools.permutations(sorted(files), 2):
        both = files[one].keys() & files[other].keys()
        if (
            one
            and one not in found
            and len(both) >= max(2, ALIKE * len(files[one]))
            and _is_plainer(root, files[one][min(both)], files[other][min(both)])
        ):
            where = "the folder itself" if not other else f"{shown(posixpath.join(above, other))}/"
            folder = shown(posixpath.join(above, one))
            found[one] = (
                f"{folder}/ holds pictures with the names of those in {where}, but in grey or with a palette: if they are maps, give "
                f"dataset.maps={folder}. They are trained on like others."
            )
    return list(found.values())


def _is_plainer(root: Path, one: File, other: File) -> bool:
    """Whether one picture is of numbers or grey and the other in colours; by their headers alone."""
    try:
        with opened(root / one.path) as first, opened(root / other.path) as second:
            return first.mode in PLAIN and first.format != "JPEG" and second.mode not in PLAIN
    except DataError:
        return False
