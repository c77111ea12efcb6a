"""Lists of all pictures with the split of each: CelebA's list_eval_partition.txt, and CUB's train_test_split.txt, whose numbers images.txt names."""

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


def read(root: Path, others: Sequence[File], pictures: Iterable[str], splits: dict[str, list[tuple[str, str]]]) -> set[str]:
    """Add (`the list PATH`, the split) to the `splits` of each picture -> the text files that are such lists."""
    files: set[str] = set()
    texts = {file.path: file for file in others if file.path.lower().endswith(".txt") and 0 < file.size <= LARGEST}
    for path in texts:
        if not any(map(CALLED.fullmatch, re.split(r"[^a-z]+", PurePosixPath(path).stem.casefold()))):
            continue
        rows = _pairs(root / path)
        values = {value for _, value in rows}
        if not rows or not (values <= CODES or all(split_word(value)[0] for value in values)):
            continue
        beside = str(PurePosixPath(path).with_name("images.txt"))
        names = dict(_pairs(root / beside)) if beside in texts else {}
        words = TRAINED if "train_test" in path.casefold() and values == set(TRAINED) else {}
        index = Index(pictures)
        said = [(index.of(names.get(name, name), path.rpartition("/")[0]), words.get(value, value)) for name, value in rows]
        if 2 * sum(len(fits) == 1 for fits, _ in said) < len(said):
            continue
        files |= {path, *([beside] if names else [])}
        for fits, value in said:
            for picture in fits if len(fits) == 1 else ():
                splits.setdefault(picture, []).append((f"the list {path}", value))
    return files


def _pairs(file: Path) -> list[tuple[str, str]]:
    """The two words of each line; [] where a line has another number of them."""
    rows = [line.replace(",", " ").split() for line in _captions.read(file)[0].splitlines() if line.strip()]
    return [(row[0], row[1]) for row in rows] if all(len(row) == 2 for row in rows) else []
