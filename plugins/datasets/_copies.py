"""Copies of held-out pictures are not trained on. Only files of equal size are opened, and read to their end only where they begin alike."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from ldmctl.errors import DataError

from . import _folds
from ._names import counted
from ._shares import first_of, names_are
from ._splits import Splits
from ._tree import File

MOST = 20_000  # files that are opened; of more, only those that have a name in common too
HEAD = 1 << 14  # bytes by which files are compared first


def leave_out(root: Path, splits: Splits) -> list[str]:
    """Take such pictures out of training -> sentences. A DataError where none would be left; those of splits that are left out are held out too."""
    outranked = [file for file in splits.left if file.path in splits.outranked]
    held = [*splits.val, *outranked]
    pairs, said = _pairs(root, splits.train, held)
    kept = {file.path for file in splits.val}
    if len(pairs) == len(splits.train) and outranked:  # a test/ that holds all
        pairs = [pair for pair in pairs if pair[1].path in kept]
        said.append("Every picture to train on is in a held-out split that is left out as well.")
    if not pairs or (len(pairs) == len(splits.train) and _is_one(root, [*splits.train, *splits.val])):  # which is said when it is seen
        return said
    folds = _folds.sentence(pairs)
    if len(pairs) == len(splits.train):
        raise DataError(
            f"Every picture to train on is held out too, under another name: {first_of(pairs[:1])}, byte by byte."
            + (f" {folds}" if folds else "")
        )
    gone = {file.path for file, _ in pairs}
    splits.left = sorted([*splits.left, *(file for file in splits.train if file.path in gone)])
    splits.train = [file for file in splits.train if file.path not in gone]
    return [
        *said,
        f"{names_are(pairs)} in the training split and held out as well, and not trained on: {first_of(pairs)}.",
        *([folds] if folds else []),
    ]


def _is_one(root: Path, files: Sequence[File]) -> bool:
    """Whether all files are copies of one picture."""
    return len(files) > 2 and len({(file.size, _digest(str(root / file.path), file.size, file.time, 0)) for file in files}) == 1


def _pairs(root: Path, train: Sequence[File], held: Sequence[File]) -> tuple[list[_folds.Pair], list[str]]:
    """(each picture to train on with the held-out one that is the same, a sentence where that was not looked for in all)."""
    linked = {(file.same, file.size, file.time): file for file in reversed(held) if file.same}
    found = {file.path: (file, linked[key]) for file in train if (key := (file.same, file.size, file.time)) in linked}
    train = [file for file in train if file.path not in found]
    said: list[str] = []
    train, held = _alike(train, held, lambda file: file.size)
    if (count := len(train) + len(held)) > MOST:
        train, held = _alike(train, held, lambda file: (file.size, file.path.rpartition("/")[2]))
        if len(train) + len(held) > MOST:
            train, held = [], []
        said = [
            f"{counted(count, 'picture')} of both splits have sizes in common, and only those with one name are compared: `ldmctl data check` finds all "
            "copies."
        ]
    for limit in (HEAD, 0):
        train, held = _alike(
            train, held, lambda file, limit=limit: (file.size, _digest(str(root / file.path), file.size, file.time, limit))
        )  # type: ignore[misc]
    first = {_digest(str(root / file.path), file.size, file.time, 0): file for file in reversed(held)}
    found |= {file.path: (file, first[_digest(str(root / file.path), file.size, file.time, 0)]) for file in train}
    return sorted(found.values()), said


def _alike(train: Iterable[File], held: Iterable[File], key: Callable[[File], Hashable]) -> tuple[list[File], list[File]]:
    """Those of both that have a key in common."""
    sides: list[dict[Hashable, list[File]]] = [defaultdict(list), defaultdict(list)]
    for side, files in zip(sides, (train, held), strict=True):
        for file in files:
            side[key(file)].append(file)
    both = sides[0].keys() & sides[1].keys()
    one, other = ([file for each in both for file in side[each]] for side in sides)
    return one, other


@lru_cache(maxsize=1 << 16)
def _digest(file: str, size: int, time: int, limit: int) -> bytes:
    """The hash of a file's first `limit` bytes, of all with 0; what cannot be read is like no other."""
    if limit == 0 and size <= HEAD:
        return _digest(file, size, time, HEAD)
    try:
        with open(file, "rb") as opened:
            return hashlib.blake2b(opened.read(limit)).digest() if limit else hashlib.file_digest(opened, "blake2b").digest()
    except OSError:
        return file.encode("utf-8", "surrogateescape")
