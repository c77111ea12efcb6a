"""CSV with any usual delimiter, read strictly: no row and no word is lost in silence."""

import csv
import io
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ldmctl.errors import DataError

from ._names import listed, shown
from ._values import FILES, column

SEPARATOR = re.compile(r"sep=(.)", re.IGNORECASE)


def rows(text: str, file: Path, known: Collection[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of each row; `known` are the last parts of the pictures' paths, case folded.

    A row that does not fit the header, or a quote that closes too late or never, is a DataError.
    """
    before = csv.field_size_limit(sys.maxsize)
    text, mark = _without_notes(text)
    mark = mark or _delimiter(text, file)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True, skipinitialspace=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            where = f"{shown(str(file))}, line {line}"
            if not header and any(cell.strip() for cell in cells):
                header = [column(cell) for cell in cells]
                while header and not header[-1]:
                    header.pop()
                if len(set(header)) < len(header):
                    raise DataError(f"{where} names a column twice: {listed(header, most=8)}.")
            elif any(cell.strip() for cell in cells):
                extra = cells[len(header) :]
                if len(cells) < len(header) or any(cell.strip() for cell in extra):
                    raise DataError(
                        f"{where} has {len(cells)} fields, the header has {len(header)}: {listed(header, most=8)}. "
                        'A text with a comma, a quote or a line break in it stands in quotes: "one, two".'
                    )
                row = dict(zip(header, cells, strict=False))
                if reader.line_num > line and (swallowed := _swallowed(row, mark, known)):
                    raise DataError(
                        f"{where} opens a quote that is closed only in line {reader.line_num}, and between them stands what looks like a row: "
                        f"{swallowed[:60]!r}. Close the quote where its text ends."
                    )
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        end = "unexpected end" in str(error)
        why = "opens a quote that nothing closes" if end else f"is not CSV ({error}): a quote inside of quotes is written twice"
        raise DataError(f"{shown(str(file))}, line {line} {why}.") from None
    finally:
        csv.field_size_limit(before)


def _without_notes(text: str) -> tuple[str, str]:
    """(the text with empty lines in place of comments above the header and of Excel's `sep=;`, the delimiter that this names)."""
    lines = text.split("\n")
    mark = ""
    first = next((line for line in lines if line.strip() and not line.startswith("#") and not SEPARATOR.fullmatch(line.strip())), "")
    for place, line in enumerate(lines):
        if found := SEPARATOR.fullmatch(line.strip()):
            mark = found[1]
        elif line.startswith("#") and _is_header(line[1:], first):
            lines[place] = line[1:]
            break
        elif line.strip() and not line.startswith("#"):
            break
        lines[place] = ""
    return "\n".join(lines), mark


def _is_header(line: str, first: str) -> bool:
    """Whether a line behind a `#` names columns: that of files, or as many as the first row has."""
    names = {column(cell) for cell in re.split(r"[,;\t|]", line)}
    return bool({*FILES} & names) or any(0 < line.count(mark) == first.count(mark) for mark in ",;\t|")


def _swallowed(row: Mapping[str, str], mark: str, known: Collection[str]) -> str:
    """The first line inside of a field that has the name of a picture where the rows have it, or ''."""
    place = next((list(row).index(key) for key in FILES if key in row), 0)
    for line in (line for cell in row.values() for line in cell.splitlines()[1:]):
        fields = line.split(mark)
        if len(fields) > max(place, 1) and fields[place].replace("\\", "/").rpartition("/")[2].strip().casefold() in known:
            return line
    return ""


def _delimiter(text: str, file: Path) -> str:
    """What parts the header: a tab in a .tsv, otherwise the one that lets it name a file, or gives it the most columns."""
    if file.suffix.lower() == ".tsv":
        return "\t"
    header = next((line for line in text.splitlines() if line.strip()), "")
    columns = {mark: [column(cell.strip().strip('"')) for cell in header.split(mark)] for mark in ",;\t|"}
    return max(columns, key=lambda mark: (bool(set(FILES) & set(columns[mark])), len(columns[mark])))
