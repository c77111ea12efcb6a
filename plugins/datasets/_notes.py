"""What the tables of a folder say of its pictures, checked: who has no row, and which rows say nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ldmctl.errors import DataError

from . import _account, _lists, _partitions, _split_columns, _tables, _unread
from ._captions import OTHERS
from ._formats import ending
from ._labels import class_folders
from ._matching import Matched, Note, Side, match
from ._names import listed, shown, unseen
from ._split_cells import speaking
from ._split_lists import LISTS, is_plain, is_submission, speaker
from ._splits import Splits
from ._tables import Row, Table
from ._tree import File
from ._unused import refuse_without, unused

FEW = 4  # tables with the names of pictures, such as train.csv beside train.png, that are read; of more, each belongs to its picture

MANY = 64  # tables with the names of pictures that lie elsewhere, of which each may be a table of many pictures
PROBED = 16  # of more, which are opened to see whether they are tables at all


@dataclass
class Notes:
    """By picture, with what is to be said."""

    notes: dict[str, Note] = field(default_factory=dict)
    splits: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # (column, value) of splits, in rows and of lists
    doubtful: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # the same in rows that fit several pictures
    lists: set[str] = field(default_factory=set)  # text files that are lists of a split's pictures
    words: list[dict[str, str]] = field(default_factory=list)  # what lists say beside the name of each picture
    untrained: bool = False  # a table or list has the name of a training split, and names no picture
    unused: dict[str, list[str]] = field(default_factory=dict)  # columns of tables that are but lists
    more: dict[str, str] = field(default_factory=dict)  # a line of each list that says more than the name of a picture
    heard: tuple[list[Table], Matched] | None = None
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def say(self, splits: Splits) -> None:
        """Sentences on what tables say of the pictures in use, once it is known which these are."""
        tables, matched = self.heard or ([], Matched())
        if tables:
            self.warnings += _account.doubts(tables, matched, splits)
            self.remarks += _account.read_from(tables, matched)
            self.remarks += filter(None, [unseen({name: way for table in tables for name, way in table.respelt.items()})])
        self.remarks += _account.columns(self.unused | {table.path: table.unused for table in tables})
        self.remarks += _account.beside(self.more)


def read_tables(
    root: Path, others: Sequence[File], splits: Splits, pictures: Sequence[File], reduced: dict[str, tuple[str, ...]], *, wanted: bool
) -> Notes:
    """The labels and captions of all pictures that tables know. Tables that fit no picture of a split are a DataError."""
    out = Notes()
    files, passed = _tables_beside(others, {file.path for file in pictures})
    paths = [file.path for file in pictures]
    sides = _sides(splits)
    folders = {above for folder in {file.folder for file in pictures} for above in _above(folder)}
    if not wanted:
        texts = [each.path for each in _lists.candidates(root, others, paths, folders, ())[0]]
        if files or texts:
            out.remarks.append(f"Tables are not read (tables=false): {listed([*files, *texts])}.")
        return out
    known = {path.rpartition("/")[2].casefold() for path in paths} if files else set()
    if passed:
        out.warnings.append(
            f"{len(passed):,} tables have the names of pictures beside them and are not read, the first {shown(passed[0])}. "
            "A table of many pictures has another name, such as metadata.csv."
        )
    failed: dict[str, str] = {}
    tables = _read_all(root, files, paths, known, failed)
    columns = _split_columns.lists(root, failed)
    tables, bare = _with_splits(tables, folders, failed, out)
    partitions = _partitions.read(root, others, paths, failed, out.splits)
    failed = {path: why for path, why in failed.items() if path not in partitions}
    rest = [file for file in others if file.path not in partitions]
    lists, too_many = _lists.candidates(root, rest, paths, folders, failed.keys() - {each.path for each in (*bare, *columns)})
    _hear_lists([*lists, *bare, *columns], paths, splits, failed, out)
    out.lists |= partitions
    out.untrained = _lists.untrained(others, paths)
    out.warnings += too_many
    out.warnings += unused(failed)
    out.warnings += _unread.tables(rest, paths)
    out.warnings += [] if splits.by_folder or out.splits else _unread.splits(root, rest)
    matched = match(tables, paths, reduced, root, sides)
    if idle := [table for table in tables if not table.named and not matched.found[table.path]]:
        _take_doubtful(splits, [each for each in matched.doubtful if each[0] in {table.path for table in idle}], out)
        out.warnings += unused({table.path: f"it names none of the pictures ({_first(table, matched)})" for table in idle})
        tables = [table for table in tables if table not in idle]
        matched = match(tables, paths, reduced, root, sides)
    if of_left := _of_left(tables, splits, matched, out):
        tables = [table for table in tables if table not in of_left]
        matched = match(tables, paths, reduced, root, sides)
    if tables:
        out.notes = matched.notes
        _take_splits(splits, matched, out)
        refuse_without(root, tables, splits, matched, class_folders(splits))
        out.heard = (tables, matched)
    return out


def _first(table: Table, matched: Matched) -> str:
    """The first row of a table that names no picture, or several."""
    row, fits = next((each[1:] for each in matched.doubtful if each[0] == table.path), (table.rows[0], []))
    return f"its first is {shown(row.name)}" if not fits else f"line {row.line}, {shown(row.name)}, may be {listed(fits)}"


def _sides(splits: Splits) -> dict[str, Side]:
    """train or val, and its rank, by picture, where folders say so."""
    if not splits.by_folder:
        return {}
    held = [*splits.val, *(file for file in splits.left if file.path in splits.outranked)]
    return {file.path: ("train", 0) for file in splits.train} | {file.path: ("val", splits.marks[file.folder].rank) for file in held}


def _of_left(tables: list[Table], splits: Splits, matched: Matched, out: Notes) -> list[Table]:
    """The tables that name no picture but of splits that are left out; it is said that they are not used."""
    left = {file.path for file in splits.left}
    found = [table for table in tables if (paths := matched.found[table.path]) and paths <= left]
    if found:
        one = len(found) == 1
        out.remarks.append(
            f"{listed(table.path for table in found)} {'is' if one else 'are'} not used: the pictures that {'it names' if one else 'they name'} are left out."
        )
    return found


def _above(folder: str) -> list[str]:
    """A folder, and all that it lies in."""
    return [folder, *(str(each) for each in PurePosixPath(folder).parents)]


def _with_splits(tables: list[Table], folders: set[str], failed: dict[str, str], out: Notes) -> tuple[list[Table], list[_lists.List]]:
    """(the tables, with all columns that name splits and the splits that they belong to by name; lists of those that have but names)."""
    columns, said = speaking(table.cells for table in tables)
    out.remarks += said
    kept, bare = [], []
    for table in tables:
        mute = sorted(name for name in table.cells if name not in columns)
        told = speaker(table.path, folders)
        made_up = is_submission(table.path)
        if made_up or (table.lacking and len(mute) == len(table.cells)):
            if told:
                bare.append(_lists.List(table.path, told, [row.name for row in table.rows]))
            failed[table.path] = (
                "it is a sample of a submission, and its labels are made up" if made_up else table.lacking
            )  # unless it is a list
            out.unused[table.path] = [] if made_up else [*table.unused, *mute]
            continue
        names = sorted(columns & table.cells.keys())
        by_name = [(LISTS, told)] if told and (is_plain(told) or not (names or any(row.splits for row in table.rows))) else []
        for number, row in enumerate(table.rows):
            pairs = [(name, word) for name in names for word in table.cells[name].get(number, ())]
            if pairs or by_name:
                table.rows[number] = row._replace(splits=(*row.splits, *pairs, *by_name))
        kept.append(table._replace(unused=[*table.unused, *mute]))
    return kept, bare


def _hear_lists(lists: Sequence[_lists.List], paths: Sequence[str], splits: Splits, failed: dict[str, str], out: Notes) -> None:
    """Take over which pictures lists have; tables that are none and no lists are said to be not used."""
    held = {file.path for file in (*splits.val, *splits.left)} if splits.by_folder else set()
    named = _lists.name(lists, paths, held)
    for path, pairs in named.of.items():
        out.splits.setdefault(path, []).extend(pairs)
    out.doubtful, out.lists, out.words, out.more = named.doubtful, named.files, named.words, named.more
    out.warnings += [
        *named.warnings,
        *_unread.split_lists([each.path for each in lists if each.path == each.speaker], {*named.files, *failed}),
    ]
    for path in named.files:
        failed.pop(path, None)
    out.unused = {path: columns for path, columns in out.unused.items() if path in named.files}


def _take_splits(splits: Splits, matched: Matched, out: Notes) -> None:
    """Take over what rows say of splits; where folders have decided, a table's name decides of no row that fits a picture that is held out."""
    for path, note in matched.notes.items():
        if note.splits:
            out.splits.setdefault(path, []).extend(note.splits)
    _take_doubtful(splits, matched.doubtful, out)


def _take_doubtful(splits: Splits, doubtful: Sequence[tuple[str, Row, list[str]]], out: Notes) -> None:
    """The same of rows that fit several pictures, in tables that are used or not."""
    train = {file.path for file in splits.train}
    for _, row, fits in doubtful:
        open_ = not splits.by_folder or train.issuperset(fits)
        pairs = [pair for pair in row.splits if pair[0] != LISTS or open_]
        for path in fits:
            out.doubtful.setdefault(path, []).extend(pairs)


def tables_among(others: Sequence[File], pictures: set[str]) -> list[str]:
    """Tables by path: those named metadata, and others, but not those of which each belongs to a picture."""
    return _tables_beside(others, pictures)[0]


def _tables_beside(others: Sequence[File], pictures: set[str]) -> tuple[list[str], list[str]]:
    """(the tables by path, those that are passed over, as each has the name of a picture beside it and there are more than FEW of them).

    JSON beside a picture is no table; what is said of captions names it.
    """
    stems = {path.rpartition(".")[0] for path in pictures} | pictures
    tables = [file.path for file in others if file.path.lower().endswith(_tables.SUFFIXES)]
    named = [path for path in tables if _tables.is_named(path)]
    rest = [path for path in tables if not _tables.is_named(path) and path.rpartition(".")[0] not in stems]
    beside = [path for path in tables if not _tables.is_named(path) and path.rpartition(".")[0] in stems and ending(path) not in OTHERS]
    return ([*named, *rest, *beside], []) if len(beside) <= FEW else ([*named, *rest], beside)


def of_each(tables: Sequence[str], pictures: Iterable[str]) -> list[str]:
    """The tables that are called as pictures elsewhere are, where they are so many that each belongs to one."""
    stems = {PurePosixPath(path).stem for path in pictures} if len(tables) > MANY else set()
    found = [path for path in tables if PurePosixPath(path).stem in stems]
    return found if len(found) > MANY else []


def _read_all(root: Path, files: Sequence[str], paths: Sequence[str], known: set[str], failed: dict[str, str]) -> list[Table]:
    """The tables that have rows; where the first of many that belong to a picture each are none, the others are not opened."""
    each = of_each(files, paths)
    first = {path: _read(root, path, known, failed) for path in each[:PROBED]}
    passed = set(each[PROBED:]) if not any(first.values()) and each else set()
    failed |= dict.fromkeys(each[PROBED:], failed.get(each[0], "those before it cannot be read")) if passed else {}
    read = [first[path] if path in first else _read(root, path, known, failed) for path in files if path not in passed]
    failed |= {table.path: "it has no rows" for table in read if table is not None and not table.rows}
    return [table for table in read if table is not None and table.rows]


def _read(root: Path, path: str, known: set[str], failed: dict[str, str]) -> Table | None:
    """A table, or None where one of another name than metadata is none, with the reason in `failed`."""
    other = not _tables.is_named(path)
    try:
        return _tables.read(root, path, known)
    except _tables.Unreadable as error:
        failed[str(error)] = ""
    except DataError as error:
        if not other and not isinstance(error, _tables.NoTable):
            raise
        failed[path] = str(error).removeprefix(shown(str(root / path))).lstrip(":, ")
    return None
