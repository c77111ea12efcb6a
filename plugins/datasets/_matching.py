"""Which picture a row of a table means: the one of that very path, or the only one that it can mean.

A path may be written from another folder (with or without the folder of a split,
or from the root), in another case or Unicode form, or without its ending. Where
two pictures would fit, none is taken.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ._formats import KNOWN, SUFFIXES, ending
from ._names import alike, composed
from ._places import below
from ._split_lists import word_of
from ._tables import Row, Table
from ._values import distinct

Side = tuple[str, int]  # ("train" | "val", rank in HELD) of a folder
DIGITS = 18  # of a number that names a picture


@dataclass
class Note:
    """What tables say of one picture."""

    label: str | None = None
    texts: tuple[str, ...] = ()
    splits: tuple[tuple[str, str], ...] = ()  # (column, value), of every row
    map: str = ""  # below the root


@dataclass
class Matched:
    """What the rows of all tables came to."""

    notes: dict[str, Note] = field(default_factory=dict)  # by path below the root
    rows: int = 0
    strange: list[tuple[str, Row]] = field(default_factory=list)  # (table, row) that names no picture
    doubtful: list[tuple[str, Row, list[str]]] = field(default_factory=list)  # ... and the pictures that it may mean
    respelt: list[tuple[str, Row, str]] = field(default_factory=list)  # ... and the picture that it means
    torn: list[tuple[str, str, str]] = field(default_factory=list)  # (picture, label, other label)
    found: dict[str, set[str]] = field(default_factory=dict)  # pictures that rows name, by table


def match(
    tables: Sequence[Table], pictures: Sequence[str], reduced: dict[str, tuple[str, ...]], root: Path, sides: Mapping[str, Side]
) -> Matched:
    """Rows by the pictures they mean; `reduced` are each picture's paths without what names a split. Later and deeper tables are heard last.

    `sides` are those of the folders of pictures: of several that a row of `train_labels.csv` fits, or one with `train`, it means that of train.
    """
    out = Matched()
    every = set(pictures)
    for table in sorted(tables, key=lambda table: (table.path.count("/"), table.named, table.path)):
        out.rows += len(table.rows)
        meant: list[tuple[Row, str]] = []
        open_rows: list[Row] = []
        for row in table.rows:
            path = below(table.folder, row.name)
            if path in every:
                meant.append((row, path))
            else:
                open_rows.append(row)
        if open_rows:
            meant += _respelt(table, open_rows, every, {path for _, path in meant}, reduced, root, sides, out)
        out.found[table.path] = {path for _, path in meant}
        _hear(table, meant, out)
    return out


def _hear(table: Table, meant: list[tuple[Row, str]], out: Matched) -> None:
    """Take over what a table says: its label instead of an earlier one, its captions before earlier ones."""
    own: dict[str, Note] = {}
    for row, path in sorted(meant, key=lambda pair: pair[0].line):
        note = own.setdefault(path, Note())
        if row.label is not None:
            if note.label not in (None, row.label):
                out.torn.append((path, str(note.label), row.label))
            note.label = row.label
        note.texts = distinct([*note.texts, *row.texts])
        note.splits = (*note.splits, *row.splits)
        note.map = below(table.folder, row.map) if row.map else note.map
    for path, note in own.items():
        before = out.notes.get(path, Note())
        if None not in (before.label, note.label) and before.label != note.label:
            out.torn.append((path, str(before.label), str(note.label)))
        out.notes[path] = Note(
            before.label if note.label is None else note.label,
            distinct([*note.texts, *before.texts]),
            (*note.splits, *before.splits),
            note.map or before.map,
        )


def _respelt(
    table: Table,
    rows: list[Row],
    every: set[str],
    taken: set[str],
    reduced: dict[str, tuple[str, ...]],
    root: Path,
    sides: Mapping[str, Side],
    out: Matched,
) -> list[tuple[Row, str]]:
    """The pictures that rows mean without being their paths; those of no or of several pictures are noted in `out`."""
    start = f"{table.folder}/" if table.folder else ""
    here = {path for path in every if path.startswith(start)}
    if not here:  # a table in a folder of its own, such as annotations/
        here, start = every, ""
    bare = not any("/" not in path[len(start) :] for path in taken if path.startswith(start))
    ways = [_Ways(here - taken, start, reduced, bare=bare)]
    if start:
        ways.append(_Ways(every - taken, "", None, bare=False))  # written from the root
    above = [alike(part) for part in (*root.absolute().parts, *PurePosixPath(table.folder).parts)]
    found = []
    for row in rows:
        up = row.name.startswith("../")  # written from the root, then
        name, fitting = (below(table.folder, row.name), ways[-1:]) if up else (row.name, ways)
        tried = [(way, each) for each in _variants(name, above) for way in fitting]
        fits = next((fit for way, each in tried for fit in way.of(each) if fit), [])
        fits = fits or next((fit for way, each in tried for fit in way.in_another_format(each) if fit), [])
        fits = _of_split(fits, row, table, sides) if len(fits) > 1 else fits
        if len(fits) == 1:
            found.append((row, fits[0]))
            out.respelt.append((table.path, row, fits[0]))
        elif fits:
            out.doubtful.append((table.path, row, fits))
        else:
            out.strange.append((table.path, row))
    return found


def _of_split(fits: list[str], row: Row, table: Table, sides: Mapping[str, Side]) -> list[str]:
    """The one of several pictures whose folder is of the split that the row names, or else its table; all where that is not one."""
    said = {found[:2] for _, value in row.splits if (found := word_of(value))[0]} or {word_of(table.path)[:2]}
    for parts in (1, 2) if len(said) == 1 else ():
        own = [path for path in fits if path in sides and sides[path][:parts] in {side[:parts] for side in said}]
        if len(own) == 1:
            return own
    return fits


def _variants(name: str, above: list[str]) -> Iterator[str]:
    """The name, as it is and as a web address is decoded."""
    yield from _shortened(name, above)
    if (plain := unquote(name)) != name:
        yield from _shortened(plain, above)


def _shortened(name: str, above: list[str]) -> Iterator[str]:
    """The name, and what is left of it where it begins with the folders that the table lies in, or, of another machine's, with any."""
    name = composed(name)
    parts = name.split("/")
    if not parts[0]:
        yield from ("/".join(parts[start:]) for start in range(1, len(parts)))
        return
    yield name
    for count in range(len(parts) - 1, 0, -1):
        if [alike(part) for part in parts[:count]] == above[-count:]:
            yield "/".join(parts[count:])


class _Ways:
    """Pictures by what their paths may be written as, the surest first."""

    def __init__(self, pictures: set[str], start: str, reduced: dict[str, tuple[str, ...]] | None, *, bare: bool):
        full, without, last = (defaultdict[str, list[str]](list) for _ in range(3))
        self.exact = {path[len(start) :]: [path] for path in pictures}
        for path in sorted(pictures):
            own = path[len(start) :]
            full[alike(own)].append(path)
            if reduced is not None:
                for short in reduced[path]:
                    without[alike(short)].append(path)
            if bare:
                last[alike(own.rpartition("/")[2])].append(path)
        self.last = last
        self.tables = [table for table in (full, without, last) if table]
        self.stems: list[dict[str, list[str]]] = []
        self.numbers: list[dict[int, list[str]]] = []

    def of(self, name: str) -> Iterator[list[str]]:
        """The pictures that a name may mean, way by way; [] where a way knows none."""
        yield self.exact.get(name, [])
        key = alike(name)
        for number, table in enumerate(self.tables):
            if table is not self.last or "/" not in name:
                yield table.get(key, [])
                if ending(name) not in SUFFIXES:
                    yield self._stems()[number].get(key, [])

        if name.isdecimal() and len(name) <= DIGITS:
            for numbers in self._by_number():
                yield numbers.get(int(name), [])

    def in_another_format(self, name: str) -> Iterator[list[str]]:
        """The same of a name with the ending of another format than the picture has today."""
        stem, suffix = os.path.splitext(alike(name))
        for number, table in enumerate(self.tables if suffix in KNOWN else ()):
            if table is not self.last or "/" not in name:
                yield self._stems()[number].get(stem, [])

    def _stems(self) -> list[dict[str, list[str]]]:
        """The same without the endings of pictures."""
        if not self.stems:
            for table in self.tables:
                stems: dict[str, list[str]] = defaultdict(list)
                for key, paths in table.items():
                    stems[os.path.splitext(key)[0]].extend(paths)
                self.stems.append(stems)
        return self.stems

    def _by_number(self) -> list[dict[int, list[str]]]:
        """The same by number, where the name is one, with any zeros before it."""
        if not self.numbers:
            for stems in self._stems():
                numbers: dict[int, list[str]] = defaultdict(list)
                for stem, paths in stems.items():
                    if stem.isdecimal() and len(stem) <= DIGITS:
                        numbers[int(stem)].extend(paths)
                self.numbers.append(numbers)
        return self.numbers
