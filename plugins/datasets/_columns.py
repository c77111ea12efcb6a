"""Splits by a column of a table, `split` or `subset`, where its values are the usual names of splits, or 0, 1 and 2 as in CelebA.

Tables and lists that are called as splits are, and names of files, are heard as such a column.
What a column says that names pictures to train on is said of all: `_neither`.
Where folders have decided, or where the rows of one picture disagree, a picture
that any of them holds out is not trained on.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from ldmctl.errors import DataError

from . import _neither
from ._file_names import NAMES
from ._names import are, counted, listed, shown
from ._shares import by_hash
from ._split_lists import COLUMN, LISTS, PLAIN, word_of
from ._splits import Splits, split_word
from ._tree import File

CODES = {"0": "0 (train)", "1": "1 (val)", "2": "2 (test)"}  # as list_eval_partition.txt of CelebA has it
Values = _neither.Values


def apply(
    splits: Splits, named: Values, pictures: Iterable[File], doubtful: Values, val_share: float, *, untrained: bool = False
) -> tuple[list[str], list[str]]:
    """Move pictures to the split that tables name -> (remarks in place of the earlier one, warnings).

    `doubtful` rows fit several pictures: those that may be held out by one are left out. `untrained`: a list of a training split is there, too.
    """
    named, doubtful = _neither.decoded(*_decoded(named, doubtful))
    pairs = {pair for rows in (named, doubtful) for values in rows.values() for pair in values}
    columns, unused = _split_columns(pairs)
    warnings = [_unheard(name, values, (named, doubtful)) for name, values in unused.items()]
    pictures = list(pictures)
    columns, more = (columns, []) if untrained else _without_lists_of_all(columns, pairs, named, splits, pictures)
    warnings += more
    if not columns:
        return [], warnings
    held = _of_files(_held(named, columns), pictures)
    perhaps = {path: value for path, value in _of_files(_held(doubtful, columns), pictures).items() if path not in held}
    column = _said(columns)
    trains = {name for name, value in pairs if name in columns and _kind(name, value)[0] == "train"}
    unknown = sorted({value for name, value in pairs if name in columns and not _kind(name, value)[0]})
    if unknown and (splits.by_folder or not trains):
        noun = "is no usual name of a split: its pictures are" if len(unknown) == 1 else "are no usual names of splits: their pictures are"
        warnings.append(f"{listed(unknown)} in {column} {noun} trained on.")
    remarks: list[str] = []
    if splits.by_folder:
        warnings += _leave_out(splits, held, f"held out by {column}")
    else:
        remarks, more = _by_column(splits, held, column, _trained_lists(columns, pairs)) if held else ([], [])
        unlisted = _unlisted(named, doubtful, pictures) if trains else set()
        warnings += [*more, *_neither.leave(splits, unlisted, named, column, lambda: None if held else _share_anew(splits, val_share))]
    warnings += _leave_out(splits, perhaps, f"perhaps held out by {column}, in a row that fits several pictures,")
    if not splits.train and (held or perhaps):
        one = len(columns) == 1 and column not in (LISTS, NAMES)
        hold, it_means = ("holds", "it means") if one else ("hold", "they mean")
        raise DataError(
            f"{column[0].upper()}{column[1:]} {hold} out every picture; none is left to train on. If {it_means} something else: {_way_out(columns)}."
        )
    return remarks, warnings


def _trained_lists(columns: set[str], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The lists of all that is trained on."""
    return sorted({value for name, value in pairs if name == LISTS in columns and word_of(value)[0] == "train"})


def _share_anew(splits: Splits, val_share: float) -> None:
    splits.train, splits.val = by_hash(sorted([*splits.train, *splits.val]), val_share)


def _said(columns: Iterable[str]) -> str:
    """`the column \`split\``, `the lists of each split`."""
    real = listed(f"`{name}`" for name in sorted(columns) if " " not in name)
    return listed([*([f"the column {real}"] if real else []), *sorted(name for name in columns if " " in name)])


def _quoted(value: str) -> str:
    return value if COLUMN.match(value) else f"`{value}`"


def _way_out(columns: set[str]) -> str:
    return "dataset.split_by=hash" if columns == {NAMES} else "dataset.tables=false"


def _kind(name: str, value: str) -> tuple[str, int, tuple[str, ...]]:
    return word_of(value) if name == LISTS else split_word(value)


def _decoded(*rows: Values) -> list[Values]:
    """The same with words beside the numbers of a column that holds 0, and 1 or 2, and nothing else."""
    coded = {name for name, values in _neither.by_column(*rows).items() if "0" in values and len(values) > 1 and values <= CODES.keys()}
    if not coded:
        return [*rows]
    return [
        {path: [(name, CODES[value] if name in coded else value) for name, value in values] for path, values in each.items()}
        for each in rows
    ]


def _split_columns(pairs: Iterable[tuple[str, str]]) -> tuple[set[str], dict[str, list[str]]]:
    """(the columns that speak of splits, as one of their values is the bare name of one or holds out; the values of the others)."""
    values: dict[str, set[str]] = defaultdict(set)
    for name, value in pairs:
        values[name].add(value)
    speaks = {name for name, known in values.items() if _speaks(name, known)}
    return speaks, {name: sorted(known) for name, known in sorted(values.items()) if name not in speaks and " " not in name}


def _speaks(name: str, values: Iterable[str]) -> bool:
    words = [_kind(name, value) for value in values]
    if name == LISTS:  # my_val.csv, or train.csv
        return any(kind == "val" or set(rest) <= PLAIN for kind, _, rest in words)
    return any(kind == "val" or (kind and not rest) for kind, _, rest in words)


def _without_lists_of_all(
    columns: set[str], pairs: set[tuple[str, str]], named: Values, splits: Splits, pictures: list[File]
) -> tuple[set[str], list[str]]:
    """The columns without the lists of one held-out split, where these hold out every picture and none is of a training split; with a sentence."""
    values = sorted(value for name, value in pairs if name == LISTS)
    if LISTS not in columns or len({word_of(value)[:2] for value in values}) > 1 or any(word_of(value)[0] == "train" for value in values):
        return columns, []
    held = _of_files(_held(named, {LISTS}), pictures)
    if any(file.path not in held for file in splits.train):
        return columns, []
    return columns - {LISTS}, [
        f"{listed(values)} {'has' if len(values) == 1 else 'have'} the name of a held-out split, but no other pictures are there: "
        f"{'it is not one' if len(values) == 1 else 'they are none'}."
    ]


def _unheard(name: str, values: list[str], rows: Iterable[Values]) -> str:
    """That a column is not used, what it says of how many pictures, and what it would have to say."""
    count = Counter(value for each in rows for pairs in each.values() for column, value in set(pairs) if column == name)
    first, *rest = values
    found = [f"{counted(count[first], 'picture')} {'has' if count[first] == 1 else 'have'} {first}"]
    found += [f"{count[value]:,} {'has' if count[value] == 1 else 'have'} {value}" for value in rest]
    return (
        f"The column `{name}` is not used: {listed(values)} {_no_names(values)}. {listed(found)}: write train in place of what names pictures to "
        "train on, and val or test in place of what names those to hold out."
    )


def _no_names(values: list[str]) -> str:
    return "is no usual name of a split" if len(values) == 1 else "are no usual names of splits"


def _held(named: Values, columns: set[str]) -> dict[str, tuple[int, str]]:
    """(rank, the word in the table) of each picture that a row holds out, by path; of several rows the one of the highest rank."""
    out: dict[str, tuple[int, str]] = {}
    for path, values in named.items():
        ranks = [(_kind(name, value)[1], value) for name, value in values if name in columns and _kind(name, value)[0] == "val"]
        if ranks:
            out[path] = max(ranks)
    return out


def _of_files(held: dict[str, tuple[int, str]], pictures: Iterable[File]) -> dict[str, tuple[int, str]]:
    """The same by every name of each file: a table may know a picture by another name than the one that is read."""
    of = {file.path: (file.same or file.path, file.size) for file in pictures}
    known = {of[path]: found for path, found in held.items() if path in of}
    return {path: known[key] for path, key in of.items() if key in known}


def _unlisted(named: Values, doubtful: Values, pictures: Iterable[File]) -> set[str]:
    """The pictures that no row gives to a split."""
    given = {path: (0, "") for rows in (named, doubtful) for path, values in rows.items() if any(_kind(*pair)[0] for pair in values)}
    return {file.path for file in pictures} - _of_files(given, pictures).keys()


def _leave_out(splits: Splits, held: dict[str, tuple[int, str]], why: str) -> list[str]:
    """Take pictures out of training."""
    gone = [file for file in splits.train if file.path in held]
    if not gone:
        return []
    splits.train = [file for file in splits.train if file.path not in held]
    splits.left = sorted([*splits.left, *gone])
    splits.outranked |= {file.path for file in gone}
    verb, first = "is" if len(gone) == 1 else "are", f"the first is {shown(gone[0].path)}, {shown(held[gone[0].path][1])}"
    whose = "its folder" if len(gone) == 1 else "their folders"
    by = f" by {whose}" if splits.by_folder else ""
    return [f"{counted(len(gone), 'picture')} of train{by} {verb} {why} and left out: {first}."]


def _by_column(splits: Splits, held: dict[str, tuple[int, str]], column: str, train: list[str]) -> tuple[list[str], list[str]]:
    """Hold out the pictures whose word has the lowest rank, and leave out those of the others; `train` are lists of all that is trained on."""
    every = sorted([*splits.train, *splits.val])
    ranks = {file.path: held[file.path][0] for file in every if file.path in held}
    if not ranks:
        return [], []
    best = min(ranks.values())
    splits.val = [file for file in every if ranks.get(file.path) == best]
    splits.train = [file for file in every if file.path not in ranks]
    others = [file for file in every if ranks.get(file.path, best) != best]
    splits.left = sorted([*splits.left, *others])
    splits.outranked |= {file.path for file in others}
    words = sorted({held[file.path][1].removesuffix(_neither.HELD) for file in splits.val})
    taken = listed(words)
    left = [
        f"{counted(count, 'picture')} of {_quoted(shown(name))} {are(count)} left out, because {taken} {are(len(words))} held out already."
        for name, count in Counter(held[file.path][1] for file in others).items()
    ]
    return [f"Splits by {column}: {taken} held out, {listed(train) or 'all other pictures'} to train on."], left
