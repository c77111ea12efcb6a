"""Tables of which each column is the list of a split: `train`, `val` and `test` above the names of pictures, as `splits_0.csv` of CLAM.

Or the first column names the picture, and of the others one is true.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ldmctl.errors import DataError

from . import _tables
from ._lists import List
from ._split_cells import FALSE, TRUE
from ._split_lists import of_column
from ._splits import split_word
from ._values import NUMBER, column, is_nothing, name_of


def lists(root: Path, failed: Iterable[str]) -> list[List]:
    """The lists in such tables, by path; `failed` were read as tables of rows and are none."""
    found = (each for path in failed if path.lower().endswith(_tables.SUFFIXES) for each in _lists(root, path))
    return [each for each in found if each.lines]


def _lists(root: Path, path: str) -> list[List]:
    try:
        rows = [{column(key): _cell(value) for key, value in row.items()} for _, row in _tables.raw(root / path, ())]
    except DataError:  # which has been said
        return []
    names = _columns(rows[0]) if rows else []
    if not names:
        return []
    by_name = not all(row[name].casefold() in {*TRUE, *FALSE} for row in rows for name in names if row.get(name))
    first = next(iter(rows[0]))
    if (not by_name and first in names) or (by_name and _counts(rows, first, names)):
        return []
    lines = {
        name: [row[name] if by_name else row.get(first, "") for row in rows if _is_listed(row.get(name, ""), by_name)] for name in names
    }
    if _overlap(
        {line for name in names for line in lines[name] if _is_train(name)},
        {line for name in names for line in lines[name] if not _is_train(name)},
    ):
        return []
    return [List(path, of_column(name, path), [line for line in each if line]) for name, each in lines.items()]


def _is_train(name: str) -> bool:
    return split_word(name)[0] == "train"


def _overlap(train: set[str], held: set[str]) -> bool:
    """Whether half of one is in the other: losses of each epoch rather than pictures."""
    return 2 * len(train & held) >= max(1, min(len(train), len(held)))


def _columns(row: Mapping[str, str]) -> list[str]:
    """The columns that are called as splits are, of training and of held-out pictures; [] where one kind is not there."""
    kinds = {name: split_word(name)[0] for name in row if split_word(name)[0]}
    return [*kinds] if {*kinds.values()} == {"train", "val"} else []


def _counts(rows: list[dict[str, str]], first: str, names: Iterable[str]) -> bool:
    """Whether the columns count the pictures of each class, which the first column names."""
    numbers = all(row[name].isdecimal() for row in rows for name in names if row.get(name))
    return numbers and first not in names and not all(row.get(first, "").isdecimal() for row in rows)


def _is_listed(cell: str, by_name: bool) -> bool:
    return bool(cell) and (by_name or cell.casefold() in TRUE)


def _cell(value: Any) -> str:
    text = NUMBER.sub(r"\1", name_of(value).strip())  # 0.0, where a column has empty cells
    return "" if is_nothing(text) else text
