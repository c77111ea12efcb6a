"""Which column of a table names the pictures."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from ldmctl.errors import DataError

from ._formats import SUFFIXES as PICTURES
from ._formats import ending
from ._names import listed
from ._values import FILES, MAPS, PERHAPS, column, name_of

MISSING = "`file_name` is missing; found"


def called_by(
    raws: Iterator[tuple[int, dict[Any, Any]]], known: Collection[str]
) -> tuple[Iterable[tuple[int, dict[Any, Any]]], tuple[str, ...]]:
    """(the same rows, the columns that may name a picture): FILES, or, where the first row has none of them, one whose values all do.

    Of a column of any name all have to end as pictures do, and half to name one.
    """
    first = next(raws, None)
    if first is None or any(column(key) in FILES for key in first[1]):
        return chain([first] if first else [], raws), FILES
    rows = [first, *raws]
    stems = {*known, *(PurePosixPath(name).stem for name in known)}
    for name in PERHAPS:
        key = next((key for key in first[1] if column(key) == name), None)
        if key is not None and all(
            name_of(row.get(key)).replace("\\", "/").rpartition("/")[2].strip().casefold() in stems for _, row in rows
        ):
            return rows, (name,)
    for key in first[1]:
        ends = [name.rpartition("/")[2].strip().casefold() for _, row in rows if (name := name_of(row.get(key)).replace("\\", "/"))]
        if (
            len(ends) == len(rows)
            and column(key) not in MAPS
            and ending(str(key)) not in PICTURES  # a list without a header
            and all(ending(end) in PICTURES for end in ends)
            and 2 * sum(end in known for end in ends) >= len(rows)
        ):
            return rows, (column(key),)
    return rows, FILES


def name_in(row: Mapping[str, Any], called: Sequence[str], where: str) -> str:
    """The file name in a row; a DataError where there is none."""
    name = next((name for key in called if (name := name_of(row.get(key)))), "")
    if not name:
        raise DataError(f"{where}: {MISSING} {listed(map(str, row), most=8) or 'nothing'}.")
    return name
