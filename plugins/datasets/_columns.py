"""Splits by a column of a table, `split` or `subset`, where its values are the usual names of splits, or 0, 1 and 2 as in CelebA.

Where folders have decided, or where the rows of one picture disagree, a picture
that any of them holds out is not trained on.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from ldmctl.errors import DataError

from ._names import counted, listed, shown
from ._splits import Splits, split_word
from ._tree import File

CODES = {"0": "0 (train)", "1": "1 (val)", "2": "2 (test)"}  # as list_eval_partition.txt of CelebA has it
Values = Mapping[str, Iterable[tuple[str, str]]]  # (column, value) of each row, by path


def apply(splits: Splits, named: Values, pictures: Iterable[File], doubtful: Values) -> tuple[list[str], list[str]]:
    """Move pictures to the split that tables name -> (remarks in place of the earlier one, warnings).

    `doubtful` rows fit several pictures: those that may be held out by one are left out.
    """
    named, doubtful = _decoded(named, doubtful)
    pairs = {pair for rows in (named, doubtful) for values in rows.values() for pair in values}
    columns, unused = _split_columns(pairs)
    warnings = [f"The column `{name}` is not used: {listed(values)} {_no_names(values)}." for name, values in unused.items()]
    if not columns:
        return [], warnings
    held = _of_files(_held(named, columns), pictures)
    perhaps = {path: value for path, value in _of_files(_held(doubtful, columns), pictures).items() if path not in held}
    column = listed(f"`{name}`" for name in sorted(columns))
    unknown = sorted({value for name, value in pairs if name in columns and not split_word(value)[0]})
    if unknown:
        noun = "is no usual name of a split: its pictures are" if len(unknown) == 1 else "are no usual names of splits: their pictures are"
        warnings.append(f"{listed(unknown)} in the column {column} {noun} trained on.")
    remarks: list[str] = []
    if splits.by_folder:
        warnings += _leave_out(splits, held, "held out by the column " + column)
    elif held:
        remarks, more = _by_column(splits, held, column)
        warnings += more
    warnings += _leave_out(splits, perhaps, f"perhaps held out by the column {column}, in a row that fits several pictures,")
    if not splits.train and (held or perhaps):
        raise DataError(
            f"The column {column} holds out every picture; none is left to train on. If it means something else: dataset.tables=false."
        )
    return remarks, warnings


def _decoded(*rows: Values) -> list[Values]:
    """The same with words beside the numbers of a column that holds 0, and 1 or 2, and nothing else."""
    known: dict[str, set[str]] = defaultdict(set)
    for each in rows:
        for values in each.values():
            for name, value in values:
                known[name].add(value)
    coded = {name for name, values in known.items() if "0" in values and len(values) > 1 and values <= CODES.keys()}
    if not coded:
        return [*rows]
    return [
        {path: [(name, CODES[value] if name in coded else value) for name, value in values] for path, values in each.items()}
        for each in rows
    ]


def _split_columns(pairs: Iterable[tuple[str, str]]) -> tuple[set[str], dict[str, list[str]]]:
    """(the columns that speak of splits, as one of their values is the bare name of one; the values of the others)."""
    values: dict[str, set[str]] = defaultdict(set)
    for name, value in pairs:
        values[name].add(value)
    speaks = {name for name, known in values.items() if any(kind and not rest for kind, _, rest in map(split_word, known))}
    return speaks, {name: sorted(known) for name, known in sorted(values.items()) if name not in speaks}


def _no_names(values: list[str]) -> str:
    return "is no usual name of a split" if len(values) == 1 else "are no usual names of splits"


def _held(named: Values, columns: set[str]) -> dict[str, tuple[int, str]]:
    """(rank, the word in the table) of each picture that a row holds out, by path; of several rows the one of the highest rank."""
    out: dict[str, tuple[int, str]] = {}
    for path, values in named.items():
        ranks = [(split_word(value)[1], value) for name, value in values if name in columns and split_word(value)[0] == "val"]
        if ranks:
            out[path] = max(ranks)
    return out


def _of_files(held: dict[str, tuple[int, str]], pictures: Iterable[File]) -> dict[str, tuple[int, str]]:
    """The same by every name of each file: a table may know a picture by another name than the one that is read."""
    of = {file.path: (file.same or file.path, file.size) for file in pictures}
    known = {of[path]: found for path, found in held.items() if path in of}
    return {path: known[key] for path, key in of.items() if key in known}


def _leave_out(splits: Splits, held: dict[str, tuple[int, str]], why: str) -> list[str]:
    """Take pictures out of training."""
    gone = [file for file in splits.train if file.path in held]
    if not gone:
        return []
    splits.train = [file for file in splits.train if file.path not in held]
    splits.left = sorted([*splits.left, *gone])
    verb, first = "is" if len(gone) == 1 else "are", f"the first is {shown(gone[0].path)}, {shown(held[gone[0].path][1])}"
    whose = "its folder" if len(gone) == 1 else "their folders"
    by = f" by {whose}" if splits.by_folder else ""
    return [f"{counted(len(gone), 'picture')} of train{by} {verb} {why} and left out: {first}."]


def _by_column(splits: Splits, held: dict[str, tuple[int, str]], column: str) -> tuple[list[str], list[str]]:
    """Hold out the pictures whose word has the lowest rank, and leave out those of the others."""
    every = sorted([*splits.train, *splits.val])
    ranks = {file.path: held[file.path][0] for file in every if file.path in held}
    if not ranks:
        return [], []
    best = min(ranks.values())
    splits.val = [file for file in every if ranks.get(file.path) == best]
    splits.train = [file for file in every if file.path not in ranks]
    others = [file for file in every if ranks.get(file.path, best) != best]
    splits.left = sorted([*splits.left, *others])
    taken = listed(sorted({held[file.path][1] for file in splits.val}))
    left = [
        f"{counted(count, 'picture')} of `{shown(name)}` {'is' if count == 1 else 'are'} left out, because {taken} is held out already."
        for name, count in Counter(held[file.path][1] for file in others).items()
    ]
    return [f"Splits by the column {column}: {taken} held out, all other pictures to train on."], left
