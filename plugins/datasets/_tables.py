"""Tables of labels and captions as rows: JSON lines, JSON, CSV with any usual delimiter, Parquet.

Reading is strict. A row that does not fit the header, a quote that nobody closes
or a line that is no JSON is a DataError with its line: a table that is cut short
in silence costs more than one that is refused.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ldmctl.errors import DataError

from . import _csv, _json_forms
from ._formats import SUFFIXES as PICTURES
from ._formats import ending
from ._names import listed, shown
from ._naming import MISSING, called_by, name_in
from ._places import Places, below
from ._split_cells import Cells
from ._split_lists import is_list
from ._values import CAPTIONS, FILES, MAPS, SPLITS, USED, captions_of, column, is_respelt, label_of, splits_of

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
NAMED = "metadata"  # tables of this name must be right; others are passed over with a warning
NAMING = ("image_id", "_name")  # ends of columns that surely name pictures where their values do
LARGEST = 1 << 30  # bytes of a table
WORDS = ("string", "large_string", "dictionary", "bool", "int", "uint")  # types of Parquet of which a column may name splits
BATCH = 65536  # rows of a Parquet file read at once


class Unreadable(DataError):
    """A table that is passed over whatever its name: it says nothing, or needs a package that is not here."""


class NoTable(DataError):
    """A file that is passed over whatever its name: it names no picture, as `metadata.json` of an album in Google Photos."""


class Row(NamedTuple):
    """One line of a table."""

    line: int
    name: str  # of the picture, relative to the table, with slashes; ../ leads up in the root
    label: str | None
    texts: tuple[str, ...]
    splits: tuple[tuple[str, str], ...] = ()  # (column, value)
    map: str = ""  # file name of its map, as `name` is written; '' where there is none


class Table(NamedTuple):
    """A table that was read."""

    path: str  # relative to the root
    rows: list[Row]
    unused: list[str]  # columns
    cells: dict[str, dict[int, tuple[str, ...]]]  # of other columns that may name a split, by row
    lacking: str = ""  # why its rows say nothing, if they name no split
    respelt: Mapping[str, str] = {}  # classes that are written with characters that cannot be seen, and how

    @property
    def folder(self) -> str:
        """Where its file names begin."""
        return self.path.rpartition("/")[0]

    @property
    def named(self) -> bool:
        """Whether it is called metadata."""
        return is_named(self.path)


def is_named(path: str) -> bool:
    """Whether a table is called metadata, whatever its ending."""
    return PurePosixPath(path).stem.casefold() == NAMED


def speaks_of_maps(file: Path) -> bool:
    """Whether a table may have a column of maps, by its first rows; a Parquet file always may."""
    try:
        with file.open("rb") as table:
            start = table.read(1 << 16).replace(b"\0", b"").lower()
    except OSError:
        return False
    return file.suffix.lower() == ".parquet" or b"map" in start or b"mask" in start


def read(root: Path, path: str, known: Collection[str]) -> Table:
    """The rows of a table below the root; what cannot be read is a DataError.

    `known` are the last parts of the pictures' paths, case folded.
    """
    file = root / path
    places = Places(root, path.rpartition("/")[0], () if is_named(path) else known)
    columns: dict[str, None] = {}
    names: dict[Any, str] = {}  # of columns, as they are written
    rows: list[Row] = []
    respelt: dict[str, str] = {}
    cells = Cells()
    raws, called = called_by(raw(file, known), known)
    for line, read_as in raws:
        row = {names.get(key) or names.setdefault(key, column(key)): value for key, value in read_as.items()}
        columns |= dict.fromkeys(row)
        where = f"{shown(str(file))}, line {line}"
        cells.hear(len(rows), row)
        name = places.relative(name_in(row, called, where), where)
        label = label_of(row.get("label"), where)
        if is_respelt(row.get("label"), label):
            respelt.setdefault(str(label), row["label"])
        rows.append(Row(line, name, label, captions_of(row, where), splits_of(row), _map(row, places, where)))
    mapped = any((root / below(path.rpartition("/")[0], row.map)).is_file() for row in rows if row.map)
    if not mapped:  # a column of another meaning
        rows = [row._replace(map="") for row in rows]
    used = {*USED, *called, *(MAPS if mapped else ()), *cells.merge()}
    cells.of = {name: each for name, each in cells.of.items() if name not in used}
    lacking = ""
    if not mapped and not {"label", *CAPTIONS, *SPLITS} & set(columns):
        lacking = f"it has neither a column `label` nor one of `text`, `caption`, `prompt`; found {listed(columns)}"
        if called != FILES and not cells.of and not is_list(path):
            line = f"{shown(str(file))}, line {rows[0].line}"
            raise DataError(f"{line}: {lacking}." if called[0].endswith(NAMING) else f"{line}: {MISSING} {listed(columns, most=8)}.")
    return Table(path, rows, [name for name in columns if name and name not in used and not cells.of.get(name)], cells.of, lacking, respelt)


def _map(row: Mapping[str, Any], places: Places, where: str) -> str:
    """The file name in the column of maps; '' where it can be none."""
    value = next((value for name in MAPS if isinstance(value := row.get(name), str) and value.strip()), "")
    if ending(value) not in PICTURES:
        return ""
    try:
        name = places.relative(value, where)
    except DataError:
        return ""
    return "" if name.startswith("/") else name  # of another machine


def raw(file: Path, known: Collection[str]) -> Iterator[tuple[int, dict[Any, Any]]]:
    """(line, cells by column, as they are written) of each row of a table of any form."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet(file)
    text = _text(file)
    if suffix in (".csv", ".tsv"):
        return _csv.rows(text, file, known)
    if suffix == ".json":
        return _json(text, file, known)
    return _lines(text, file)


def _text(file: Path) -> str:
    """The text of a table: UTF-8, or UTF-16 with its mark. Anything else is a DataError with the line."""
    try:
        if (size := file.stat().st_size) > LARGEST:
            raise DataError(f"{shown(str(file))} has {size:,} bytes; tables of up to {LARGEST:,} are read.")
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(str(file))} cannot be read: {error.strerror or error}.") from None
    try:
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{shown(str(file))}, line {line} is not UTF-8. Save the file as UTF-8.") from None
    if "\0" in text:
        raise DataError(f"{shown(str(file))}, line {text[: text.index(chr(0))].count(chr(10)) + 1} holds a NUL: it is no text in UTF-8.")
    return text


# -- JSON ----------------------------------------------------------------------


def _loads(words: str, where: str) -> Any:
    """A JSON value; a DataError where an object in it has a key twice with two values, of which Python keeps the last in silence."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        twice = next((key for key, value in pairs if value != found[key]), None) if len(found) < len(pairs) else None
        if twice is not None:
            raise DataError(f"{where}: one object has {shown(twice[:80])} twice, and either may be meant.")
        return found

    return json.loads(words, object_pairs_hook=once)


def _parsed(words: str, where: str) -> Any:
    try:
        return _loads(words, where)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from None


def _lines(text: str, file: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    for line, words in enumerate(text.split("\n"), start=1):
        if not words.strip():
            continue
        where = f"{shown(str(file))}, line {line}"
        row = _parsed(words, where)
        if isinstance(row, dict):
            yield line, row
        elif row is not None:
            raise DataError(f"{where}: an object with `file_name` was expected, not {words[:40]!r}.")


def _json(text: str, file: Path, known: Collection[str]) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Rows of a JSON value in one of the forms of `_json_forms`, or of JSON lines under its name."""
    try:
        whole = _loads(text, shown(str(file))) if text.strip() else []
    except (ValueError, RecursionError) as error:
        if "\n" in text.strip() and text.lstrip().startswith("{") and "Extra data" in str(error):  # JSON lines under another name
            yield from _lines(text, file)
            return
        raise DataError(f"{shown(str(file))} is not JSON: {error}") from None
    rows = _json_forms.rows(whole, file.stem, shown(str(file)), known)
    if rows is None:
        error = DataError if not isinstance(whole, dict) or _json_forms.names_any(whole, known) else NoTable
        raise error(f"{shown(str(file))}: a list of objects with `file_name` was expected, or one object by file name.")
    yield from enumerate(rows, start=1)


# -- Parquet -------------------------------------------------------------------


def _parquet(file: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Unreadable(f"{shown(str(file))} is not read: that needs pyarrow (pip install pyarrow).") from None
    try:
        table = parquet.ParquetFile(file)
        schema = table.schema_arrow
        names = [name for name in schema.names if column(name) in {*USED, *MAPS} or str(schema.field(name).type).startswith(WORDS)]
        lacking = {name: None for name in schema.names if name not in names}
        line = 0
        for batch in table.iter_batches(BATCH, columns=names):
            for row in batch.to_pylist():
                line += 1
                yield line, {**lacking, **row}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{shown(str(file))} is not Parquet: {' '.join(str(error).split())[:200]}") from None
