"""Maps that lie among the pictures: `1_mask.png` beside `1.png` or `1_sat.jpg`, where half of the pictures have one."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence

from ._map_names import OF_PHOTO
from ._names import alike, counted, shown
from ._tree import File

WORDS = r"masks?|seg|segmentation|segmap|labelmap|trimap|(?:mask|cond)label|manual|gt|ground[\s_.-]?truth|anno|annotation|labels?|matte|alpha|(?:1st|2nd)ho"
ENDING = re.compile(rf"(.+?)[\s_.-]+(?:{WORDS})(?:[\s_.-]?\d+)?$", re.IGNORECASE)


def find(pictures: Sequence[File], warnings: list[str]) -> dict[str, list[File]]:
    """The maps of each picture that has some; {} where less than half have one. A sentence on pictures with several is added."""
    stems = {(file.folder, OF_PHOTO.sub("", _stem(file))): file for file in pictures}
    stems |= {(file.folder, _stem(file)): file for file in pictures}
    found: dict[str, list[File]] = defaultdict(list)
    for file in pictures:
        told = ENDING.match(_stem(file))
        if told and (owner := stems.get((file.folder, told[1]))):
            found[owner.path].append(file)
    maps = {file.path for files in found.values() for file in files}
    found = {path: sorted(files, key=lambda file: (len(file.path), file.path)) for path, files in found.items() if path not in maps}
    if len(found) < 2 or 2 * len(found) < len(pictures) - len(maps):
        return {}
    several = sorted(path for path, files in found.items() if len(files) > 1)
    if several:
        warnings.append(_on(several, found[several[0]][0]))
    return found


def _on(several: Sequence[str], used: File) -> str:
    have = "has several maps beside it" if len(several) == 1 else "have several maps beside them"
    which = f"of {shown(several[0])} it is {shown(used.path)}"
    return f"{counted(len(several), 'picture')} {have}, of which one is used: {which}. Merge them where all are meant."


def _stem(file: File) -> str:
    return os.path.splitext(alike(file.path.rpartition("/")[2]))[0]
