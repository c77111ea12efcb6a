"""Splits by the names of files: `train_0.png` and `val_0.png`, `COCO_train2014_0.jpg`, `cat_test_0.png`, where nearly every picture has one."""

import os
import re
from collections.abc import Sequence

from ._names import counted, shown
from ._splits import HELD, TRAIN
from ._tree import File

NAMES = "the names of files"  # in place of the name of a column, which has no space
ANY = "|".join(sorted({*TRAIN, *HELD}, key=len, reverse=True))
FIRST = re.compile(rf"({ANY})(?:sets?|data)?(?-i:(?![a-z]))", re.IGNORECASE)
LAST = re.compile(rf".*(?-i:(?<![a-zA-Z]))({ANY})\d*$", re.IGNORECASE | re.DOTALL)
INSIDE = re.compile(rf"(?-i:(?<![a-zA-Z]))({ANY})(?:sets?|data)?(?-i:(?![a-z]))", re.IGNORECASE)
MOST, MANY = 0.75, 0.25  # shares of pictures with such a name, from which it decides and from which it is said that it does not


def by_file_names(pictures: Sequence[File]) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """({path: [(NAMES, the word)]} where names begin, end or, all of them, have a word of a split, of both kinds; a sentence where too few do)."""
    stems = {file.path: os.path.splitext(file.path.rpartition("/")[2])[0] for file in pictures}
    found_in = {path: INSIDE.findall(stem) for path, stem in stems.items()}
    inside = {path: words[0] for path, words in found_in.items() if len({word.casefold() in TRAIN for word in words}) == 1}
    start = _common([stem for path, stem in stems.items() if found_in[path]])
    first = {path: found[1] for path, words in found_in.items() if words and (found := FIRST.match(stems[path][start:]))}
    last = {path: found[1] for path, stem in stems.items() if (found := LAST.match(stem))}
    few = ""
    for words, least in ((first, MOST), (last, MOST), (inside, 1)):
        kinds = {word.casefold() in TRAIN for word in words.values()}
        if kinds == {False} and len(words) >= MOST * len(stems):
            few = few or _held_alone(words, stems)
        if len(kinds) < 2:
            continue
        if len(words) >= least * len(stems):
            return {path: [(NAMES, word.casefold())] for path, word in words.items()}, ""
        if len(words) >= MANY * len(stems):
            few = few or _few(words, stems)
    return {}, few


def _held_alone(words: dict[str, str], stems: dict[str, str]) -> str:
    return (
        f"{counted(len(words), 'picture')} of {len(stems):,} have the word of a held-out split in their names, such as {shown(min(words))}, and none that of a "
        "training split: the names decide nothing, and these pictures are trained on."
    )


def _few(words: dict[str, str], stems: dict[str, str]) -> str:
    other = next(path for path in stems if path not in words)
    held = next(path for path, word in words.items() if word.casefold() in HELD)
    return (
        f"{counted(len(words), 'picture')} of {len(stems):,} have the word of a split in their names, such as {shown(held)}, and others none, such as "
        f"{shown(other)}: the names decide nothing. If they should, give a table with `file_name` and `split`, or folders train and val."
    )


def _common(stems: list[str]) -> int:
    """How many characters all names begin with, up to the last that parts words: `COCO_`."""
    first, last = min(stems, default=""), max(stems, default="")
    same = next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), min(len(first), len(last)))
    return max((place + 1 for place, letter in enumerate(first[:same]) if not letter.isalnum()), default=0)
