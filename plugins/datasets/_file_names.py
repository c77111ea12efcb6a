"""Splits by the names of files: `train_0.png` and `val_0.png`, `COCO_train2014_0.jpg`, `0_test.png`, where every picture has one."""

import os
import re
from collections.abc import Sequence

from ._splits import HELD, TRAIN
from ._tree import File

NAMES = "the names of files"  # in place of the name of a column, which has no space
ANY = "|".join(sorted({*TRAIN, *HELD}, key=len, reverse=True))
FIRST = re.compile(rf"({ANY})(?:sets?|data)?(?-i:(?![a-z]))", re.IGNORECASE)
LAST = re.compile(rf".*(?-i:(?<![a-zA-Z]))({ANY})\d*$", re.IGNORECASE | re.DOTALL)


def by_file_names(pictures: Sequence[File]) -> dict[str, list[tuple[str, str]]]:
    """(NAMES, the word) of every picture, by path, where all begin or all end with words of splits, of both kinds; otherwise {}."""
    stems = {file.path: os.path.splitext(file.path.rpartition("/")[2])[0] for file in pictures}
    start = _common(list(stems.values()))
    for pattern in (FIRST, LAST):
        words: dict[str, str] = {}
        for path, stem in stems.items():
            found = pattern.match(stem[start:])
            if not found:
                break
            words[path] = found[1].casefold()
        if len(words) == len(stems) and len({word in TRAIN for word in words.values()}) == 2:
            return {path: [(NAMES, word)] for path, word in words.items()}
    return {}


def _common(stems: list[str]) -> int:
    """How many characters all names begin with, up to the last that parts words: `COCO_`."""
    first, last = min(stems, default=""), max(stems, default="")
    same = next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), min(len(first), len(last)))
    return max((place + 1 for place, letter in enumerate(first[:same]) if not letter.isalnum()), default=0)
