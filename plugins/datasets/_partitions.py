"""Lists of all pictures with the split of each: CelebA's and DeepFashion's list_eval_partition.txt, and CUB's train_test_split.txt, whose numbers images.txt names.

The split is the last word of each line, or another, or stands in a line of its own above the names: `[train]`, or `train:` in YAML.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from . import _captions
from ._formats import SUFFIXES, ending
from ._lists import LARGEST, NAME, Index
from ._splits import split_word
from ._tree import File

CALLED = re.compile(r"partitions?|splits?")  # a word in the name of such a list
ENDINGS = (".txt", ".lst", ".list", ".yaml", ".yml")
SUFFIXES_OF = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})\W*$", re.IGNORECASE)
CODES = {"0", "1", "2"}  # as CelebA has them
TRAINED = {"1": "train", "0": "test"}  # of a list that is called train_test_split
SEARCHED = {"query": "query (test)", "gallery": "gallery (test)"}  # as pictures are called in which others are looked for


def read(
    root: Path, others: Sequence[File], pictures: Iterable[str], failed: Collection[str], splits: dict[str, list[tuple[str, str]]]
) -> set[str]:
    """Add (`the list PATH`, the split) to the `splits` of each picture -> the files that are such lists; `failed` are tables that are none."""
    files: set[str] = set()
    texts = {file.path: file for file in others if 0 < file.size <= LARGEST and (ending(file.path) in ENDINGS or file.path in failed)}
    called = [path for path in texts if any(map(CALLED.fullmatch, re.split(r"[^a-z]+", PurePosixPath(path).stem.casefold())))]
    index = Index(pictures) if called else None
    for path in called if index else ():
        text, beside = _captions.read(root / path)[0], str(PurePosixPath(path).with_name("images.txt"))
        numbers = _rows(_captions.read(root / beside)[0]) if beside in texts else []
        names = {row[0]: row[1] for row in numbers if len(row) == 2}
        for rows in (_rows(text), _rows(text, spaces=True), _below_words(text)):
            if said := _said(rows, names, index, path):
                files |= {path, *([beside] if names else [])}
                for picture, value in said:
                    splits.setdefault(picture, []).append((f"the list {path}", value))
                break
    return files


def _said(rows: Sequence[Sequence[str]], names: Mapping[str, str], index: Index, path: str) -> list[tuple[str, str]]:
    """(a picture, its split) of the rows whose last word is one; [] where less than half name a picture."""
    values = {row[-1] for row in rows}
    if not rows or not (values <= CODES or all(map(_is_split, values))):
        return []
    words = TRAINED if "train_test" in path.casefold() and values == set(TRAINED) else SEARCHED
    folder = path.rpartition("/")[0]
    said = [(_meant([names.get(name, name) for name in row[:-1]], index, folder), words.get(row[-1], row[-1])) for row in rows]
    found = [(picture, value) for picture, value in said if picture]
    return found if 2 * len(found) >= len(said) else []


def _meant(words: Sequence[str], index: Index, folder: str) -> str:
    """The one picture that a word may mean, first of those that end as pictures do; '' where none does."""
    fits = [(word, found[0]) for word in words if len(found := index.of(word, folder)) == 1]
    return next((picture for word, picture in fits if ending(word) in SUFFIXES), fits[0][1] if fits else "")


def _is_split(value: str) -> bool:
    return value in SEARCHED or bool(split_word(value)[0])


def _says(value: str) -> bool:
    return value in CODES or _is_split(value)


def _rows(text: str, *, spaces: bool = False) -> list[list[str]]:
    """The words of each line below the head; [] where the lines have different numbers of them, or but one."""
    rows = [_parted(line, spaces=spaces) for line in text.splitlines() if line.strip()]
    counted = len(rows) > 1 and len(rows[0]) == 1 and rows[0][0].isdecimal()
    rows = rows[1:] if counted else rows
    if len(rows) > 1 and not _is_split(rows[1][-1]):  # the split stands before the name, or between two words
        place = next((place for place, column in enumerate(zip(*rows[1:], strict=False)) if all(map(_is_split, column))), -1)
        rows = [[*row[:place], *row[place + 1 :], row[place]] for row in rows if len(row) > place] if place >= 0 else rows
    if len(rows) > 1 and _says(rows[1][-1]) and not _says(rows[0][-1]):  # names of columns
        rows = rows[1:]
    return rows if rows and len({len(row) for row in rows}) == 1 and len(rows[0]) > 1 else []


def _parted(line: str, *, spaces: bool) -> list[str]:
    """The words of a line; with `spaces` the name of a picture is one, which has some in it."""
    line = re.sub(r"[\",;]", " ", line).strip()
    if not spaces:
        return line.split()
    first = line.split(maxsplit=1)[0] if line else ""
    before = [first] if _is_split(first) else []
    rest = line[len(first) :].strip() if before else line
    named = NAME.match(rest)
    return [*before, *([named[1], *rest[named.end() :].split()] if named else rest.split())]


def _below_words(text: str) -> list[list[str]]:
    """Each line with the split that stands alone in one above it; [] where no training and held-out split does."""
    rows: list[list[str]] = []
    split = ""
    for line in text.splitlines():
        word = line.strip().strip("[]#=:- \t")
        if _is_split(word) and not split_word(word)[2] and not SUFFIXES_OF.search(line):
            split = word
        elif split and (name := line.strip().removeprefix("- ").strip("\"' ")):
            rows.append([name, split])
    kinds = {split_word(SEARCHED.get(row[1], row[1]))[0] for row in rows}
    return rows if kinds == {"train", "val"} else []
