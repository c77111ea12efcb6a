"""Folds of cross-validation, in which what one holds out another trains on."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ._names import listed, natural
from ._split_lists import COLUMN
from ._tree import File

FOLD = re.compile(r"(?:fold|cv|split|round|run)[\s_.-]*(?:\d+|[a-z](?![a-z]))", re.IGNORECASE)
PLAIN = re.compile(r"((?:k[\s_.-]*)?fold|cv|split)s?[\s_.-]*(?:\d+|[a-z])", re.IGNORECASE)  # the whole name of a folder
Pair = tuple[File, File]  # a picture to train on, and the held-out one that is the same


def fold_of(folder: str) -> str:
    """The part of a path that numbers a fold: `fold_1` of `fold_1/train/cat`, `train2` of `all/train2`; '' where none does."""
    parts = folder.split("/")
    return next((part for part in parts if FOLD.search(part)), next((part for part in parts if re.search(r"\d", part)), ""))


def numbered(folders: Iterable[str]) -> set[str]:
    """The names of folders that number folds, `fold_1` and `fold_2`, where there are two or more of one kind."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for name in folders:
        if found := PLAIN.fullmatch(name):
            kinds[found[1].casefold()].add(name)
    return {name for names in kinds.values() if len(names) > 1 for name in names}


def no_classes(names: Iterable[str], *, by_folder: bool) -> str:
    """That such folders are no classes; '' where there are none."""
    found = natural(names)
    if not found:
        return ""
    held = "" if by_folder else ", and none of them is held out. To hold one out, rename it to val"
    return f"{listed(found)} number folds of cross-validation: they are no classes{held}. If they are classes, a column `label` says so."


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


def first_of_lists(lists: Mapping[str, tuple[str, set[str]]]) -> tuple[set[str], str]:
    """(the lists to pass over, a sentence): of `train1`, `test1`, `train2` and `test2` all but the first fold, where one trains on what another holds out.

    By path, or column of one, each with the kind of its split (train or val) and its pictures.
    """
    sides: dict[str, dict[str, set[str]]] = {"train": defaultdict(set), "val": defaultdict(set)}
    numbers = {path: _numbers(path) for path in lists}
    for path, (kind, pictures) in lists.items():
        sides[kind][numbers[path]] |= pictures
    folds = sorted(sides["train"].keys() & sides["val"].keys() - {""}, key=lambda each: (len(each), each))
    crossed = any(sides["train"][one] & sides["val"][other] for one in folds for other in folds if one != other)
    if not crossed:
        return set(), ""
    passed = {path for path, number in numbers.items() if number in folds[1:]}
    kept = sorted({COLUMN.sub("", path) for path, number in numbers.items() if number == folds[0]})
    return passed, (
        f"{listed(sorted({COLUMN.sub('', path) for path in lists}))} are folds of cross-validation, of which one trains on what another holds out: "
        f"the first is used ({listed(kept)}). For another, take away its lists."
    )


def _numbers(path: str) -> str:
    """The number of a list: `1` of `Partitions/Training_01.txt`, that of its folder where its name has none."""
    found = next((part for part in reversed(path.split("/")) if re.search(r"\d", part)), "")
    return "-".join(str(int(each)) for each in re.findall(r"[0-9]+", found))


def _number(part: str) -> str:
    found = FOLD.search(part)
    return "".join(re.findall(r"\d+|[a-z]$", (found[0] if found else part).casefold()))
