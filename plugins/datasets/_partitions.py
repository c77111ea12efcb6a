"""Lists of all pictures with the split of each: CelebA's and DeepFashion's list_eval_partition.txt, and CUB's train_test_split.txt, whose numbers images.txt names."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from . import _captions
from ._lists import LARGEST, Index
from ._splits import split_word
from ._tree import File

CALLED = re.compile(r"partitions?|splits?")  # a word in the name of such a list
CODES = {"0", "1", "2"}  # as CelebA has them
TRAINED = {"1": "train", "0": "test"}  # of a list that is called train_test_split
SEARCHED = {"query": "query (test)", "gallery": "gallery (test)"}  # as pictures are called in which others are looked for


def read(root: Path, others: Sequence[File], pictures: Iterable[str], splits: dict[str, list[tuple[str, str]]]) -> set[str]:
    """Add (`the list PATH`, the split) to the `splits` of each picture -> the text files that are such lists."""
    files: set[str] = set()
    texts = {file.path: file for file in others if file.path.lower().endswith(".txt") and 0 < file.size <= LARGEST}
    for path in texts:
        if not any(map(CALLED.fullmatch, re.split(r"[^a-z]+", PurePosixPath(path).stem.casefold()))):
            continue
        rows = _rows(root / path)
        values = {row[-1] for row in rows}
        if not rows or not (values <= CODES or all(map(_is_split, values))):
            continue
        beside = str(PurePosixPath(path).with_name("images.txt"))
        names = {row[0]: row[1] for row in _rows(root / beside) if len(row) == 2} if beside in texts else {}
        words = TRAINED if "train_test" in path.casefold() and values == set(TRAINED) else SEARCHED
        index, folder = Index(pictures), path.rpartition("/")[0]
        said = [
            ([fits for name in row[:-1] if (fits := index.of(names.get(name, name), folder))], words.get(row[-1], row[-1])) for row in rows
        ]
        if 2 * sum(any(len(fits) == 1 for fits in each) for each, _ in said) < len(said):
            continue
        files |= {path, *([beside] if names else [])}
        for each, value in said:
            for picture in (fits[0] for fits in each if len(fits) == 1):
                splits.setdefault(picture, []).append((f"the list {path}", value))
    return files


def _is_split(value: str) -> bool:
    return value in SEARCHED or bool(split_word(value)[0])


def _says(value: str) -> bool:
    return value in CODES or _is_split(value)


def _rows(file: Path) -> list[list[str]]:
    """The words of each line below the head; [] where the lines have different numbers of them, or but one."""
    rows = [line.replace(",", " ").split() for line in _captions.read(file)[0].splitlines() if line.strip()]
    counted = len(rows) > 1 and len(rows[0]) == 1 and rows[0][0].isdecimal()
    rows = rows[1:] if counted else rows
    if len(rows) > 1 and _says(rows[1][-1]) and not _says(rows[0][-1]):  # names of columns
        rows = rows[1:]
    return rows if rows and len({len(row) for row in rows}) == 1 and len(rows[0]) > 1 else []
