"""Which pictures of a folder are maps because a table says so, known before the pictures are shared out."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ldmctl.errors import DataError

from . import _tables
from ._notes import of_each, tables_among
from ._places import below
from ._tree import File


def named_in_tables(root: Path, pictures: Sequence[File], files: Sequence[File]) -> set[str]:
    """The pictures that are maps by a column of a table, and what else lies in a folder of such maps in which a table names no picture.

    What is wrong with a table is said when it is heard.
    """
    if not any(file.path.lower().endswith(_tables.SUFFIXES) for file in files):
        return set()
    paths = {file.path for file in pictures}
    found: set[str] = set()
    pictured: set[str] = set()  # folders of pictures that a table names
    known = {path.rpartition("/")[2].casefold() for path in paths}
    tables = tables_among([file for file in files if file.path not in paths], paths)
    passed = set(of_each(tables, paths))
    for table in tables:
        if table in passed or not _tables.speaks_of_maps(root / table):
            continue
        try:
            rows = _tables.read(root, table, known).rows
        except DataError:
            continue
        found |= {below(table.rpartition("/")[0], row.map) for row in rows if row.map} & paths
        pictured |= {below(table.rpartition("/")[0], row.name).rpartition("/")[0] for row in rows}
    inside = Counter(path.rpartition("/")[0] for path in found)
    whole = Counter(path.rpartition("/")[0] for path in paths)
    full = {folder for folder, count in inside.items() if 2 * count >= whole[folder]} - pictured
    return found | {path for path in paths if path.rpartition("/")[0] in full}
