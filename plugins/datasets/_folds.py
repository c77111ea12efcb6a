"""Folds of cross-validation, in which what one holds out another trains on."""

import re
from collections.abc import Iterable

from ._names import listed
from ._tree import File

FOLD = re.compile(r"(?:fold|cv|split|round|run)[\s_.-]*(?:\d+|[a-z](?![a-z]))", re.IGNORECASE)
Pair = tuple[File, File]  # a picture to train on, and the held-out one that is the same


def fold_of(folder: str) -> str:
    """The part of a path that numbers a fold: `fold_1` of `fold_1/train/cat`, `train2` of `all/train2`; '' where none does."""
    parts = folder.split("/")
    return next((part for part in parts if FOLD.search(part)), next((part for part in parts if re.search(r"\d", part)), ""))


def sentence(pairs: Iterable[Pair]) -> str:
    """That these are folds, where a picture to train on is held out by another of them; '' where they are none."""
    known = {(fold_of(train.folder), fold_of(held.folder)) for train, held in pairs}
    crossing = {pair for pair in known if all(pair) and _number(pair[0]) != _number(pair[1])}
    if not crossing or not any(FOLD.search(one) or _number(one) == _number(other) for one, _ in crossing for _, other in crossing):
        return ""
    folds = sorted({part for pair in crossing for part in pair})
    return (
        f"{listed(folds)} look like folds of cross-validation: the held-out pictures of one are in the training split of another. A fold alone is "
        "a data set of its own: give its folder as --data."
    )


def _number(part: str) -> str:
    found = FOLD.search(part)
    return "".join(re.findall(r"\d+|[a-z]$", (found[0] if found else part).casefold()))
