"""Pictures that a column or list of splits gives to neither: where it names those to train on, all others are not trained on.

As a folder `train/` does, a `train` in a column says which pictures are trained on. The other values of such a column are
held out where none has the usual name of a held-out split, and left out where one has; so is what has no value at all.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from ._names import counted, shown
from ._split_lists import LISTS
from ._splits import Splits, short_words, split_word
from ._tree import File

Values = Mapping[str, Iterable[tuple[str, str]]]  # (column, value) of each row, by path
HELD = " (held out)"  # after a value that is no usual name of a split


def by_column(*rows: Values) -> dict[str, set[str]]:
    """All values of each column."""
    known: dict[str, set[str]] = defaultdict(set)
    for each in rows:
        for values in each.values():
            for name, value in values:
                known[name].add(value)
    return known


def decoded(*rows: Values) -> list[Values]:
    """The same with the values of a column that names `train` and others, of which none is a usual name, as held out: `False (held out)`."""
    short = {name: found for name, values in by_column(*rows).items() if (found := short_words({value.casefold() for value in values}))}
    rows = tuple(
        {path: [(name, _spelt(value, short.get(name, {}))) for name, value in values] for path, values in each.items()} for each in rows
    )
    kinds = {name: {split_word(value)[0] for value in values} for name, values in by_column(*rows).items() if name != LISTS}
    torn = {name for name, found in kinds.items() if found == {"train", ""}}
    if not torn:
        return [*rows]
    return [
        {
            path: [(name, value + HELD if name in torn and not split_word(value)[0] else value) for name, value in values]
            for path, values in each.items()
        }
        for each in rows
    ]


def _spelt(value: str, short: Mapping[str, tuple[str, int]]) -> str:
    """`te (test)` of a column of tr, va and te; other values as they are."""
    kind, rank = short.get(value.casefold(), ("", 0))
    return f"{value} ({kind if not rank else 'test'})" if kind else value


def leave(splits: Splits, unlisted: set[str], named: Values, column: str, again: Callable[[], None]) -> list[str]:
    """Take pictures out that no row gives to a split -> sentences. `again` shares out anew what is left, where a hash has done so."""
    gone = [file for file in (*splits.train, *splits.val) if file.path in unlisted]
    if not gone:
        return []
    splits.train, splits.val = ([file for file in files if file.path not in unlisted] for files in (splits.train, splits.val))
    splits.left = sorted([*splits.left, *gone])
    again()
    other: dict[str, list[str]] = {file.path: values for file in gone if (values := [value for _, value in named.get(file.path, ())])}
    said = [
        f"{counted(count, 'picture')} of `{shown(value)}` {'is' if count == 1 else 'are'} left out, because that is no usual name of a split."
        for value, count in Counter(values[0] for values in other.values()).items()
    ]
    return [*said, *_without(sorted(file for file in gone if file.path not in other), column)]


def _without(files: list[File], column: str) -> list[str]:
    """A sentence on pictures of no row at all."""
    if not files:
        return []
    verb, them = ("is", "it") if len(files) == 1 else ("are", "them")
    if column == LISTS:
        where, how = "none of the lists of the splits", "a list"
    else:
        where, how = f"no split of {column}", "it"
    return [
        f"{counted(len(files), 'picture')} in {where} {verb} left out, the first {shown(files[0].path)}. To use {them}, add {them} to {how}; "
        "to read no tables and lists: dataset.tables=false."
    ]
