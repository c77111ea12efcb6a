"""Columns of other names than `split` that name one all the same: by their values, or as booleans such as `is_valid`.

A column of any name does, where its values are usual names of splits, of training and of held-out pictures, and nothing else.
One called `set` or `Usage` does, where one of its values is the bare name of a held-out split. Of `is_valid` or `test` the
true rows are held out, of `is_train` those that are not true.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ._splits import split_word
from ._values import USED, is_nothing, words_of

CALLED = frozenset(
    ["set", "dataset", "usage", "phase", "split", "splits", "subset", "partition", "part", "fold", "folds", "kfold", "cv"]
)  # words in the name of a column
TRUE, FALSE = frozenset(["true", "1", "yes", "y", "t", "x"]), frozenset(["false", "0", "no", "n", "f"])
BESIDE = frozenset(["is", "in", "for", "use", "used"])  # words in the name of a boolean column
MOST = 12  # different values of a column that names splits
LONGEST = 40  # characters of such a value
NUMBER = re.compile(r"[a-z_ -]*\d+")  # of a fold


class Cells:
    """The cells of a table, by column and row, of the columns that may name a split as far as it was read."""

    def __init__(self) -> None:
        self.of: dict[str, dict[int, tuple[str, ...]]] = {}
        self._values: dict[str, set[str]] = defaultdict(set)
        self._others: set[str] = set(USED)  # columns that cannot

    def hear(self, number: int, row: Mapping[Any, Any]) -> None:
        """Take in a row."""
        for name, value in row.items():
            if name in self._others:
                continue
            words = [_word(name, text) for text in words_of(value) if not is_nothing(text)]
            self._values[name].update(word for word in words if word)
            if not name or None in words or len(self._values[name]) > MOST:
                self._others.add(name)
                self.of.pop(name, None)
            elif words:
                self.of.setdefault(name, {})[number] = tuple(word for word in words if word)

    def merge(self) -> set[str]:
        """Make one column, `train/val/test`, of those of which one is true in every row -> their names."""
        flags = {name: flag for name, rows in self.of.items() if (flag := _flag(name)) and all(len(each) == 1 for each in rows.values())}
        told = [[name for name in flags if self.of[name].get(row, ("",))[0].startswith("true (")] for row in set().union(*self.of.values())]
        if {kind for kind, _ in flags.values()} != {"train", "val"} or any(len(names) != 1 for names in told):
            return set()
        cells = {row: (flags[name][1],) for name in flags for row, words in self.of[name].items() if words[0].startswith("true (")}
        self.of = {name: rows for name, rows in self.of.items() if name not in flags} | {"/".join(flags): cells}
        return {*flags}


def _word(name: str, text: str) -> str | None:
    """What a cell says of the split: `test`, `true (valid)` of a boolean; None where it is no such cell."""
    if flag := _flag(name):
        kind, word = flag
        if text.casefold() in TRUE:
            return f"true ({word})"
        if text.casefold() in FALSE:
            return "false (train)" if kind == "val" else "false (held out)"
    if len(text) > LONGEST:
        return None
    return text if is_called(name) or split_word(text)[0] else None


def _flag(name: str) -> tuple[str, str] | None:
    """("train" | "val", the word) of a column's name that asks whether a row is of a split, such as `is_valid` or `train`."""
    for each in (name, name.removeprefix("is")):  # isvalid
        kind, _, rest = split_word(each)
        if kind and set(rest) <= BESIDE:
            return kind, " ".join(word for word in each.split("_") if word not in BESIDE)
    return None


def is_called(name: str) -> bool:
    """Whether a column is called as those that name splits are: `set`, `Usage`, `data_split`."""
    return bool(CALLED & set(name.split("_")))


def speaking(cells: Iterable[Mapping[str, Mapping[int, tuple[str, ...]]]]) -> tuple[set[str], list[str]]:
    """(the columns that name splits by their cells in all tables, sentences on columns that look so and do not)."""
    count: dict[str, Counter[str]] = defaultdict(Counter)
    for table in cells:
        for name, rows in table.items():
            count[name].update(word for words in rows.values() for word in words)
    quality = {name for name, words in count.items() if _is_quality(words)}
    said = [
        f"The column `{name}` is true in {_trues(count[name]):,} of {sum(count[name].values()):,} rows and taken for what is right, not for what is held out."
        for name in sorted(quality)
    ]
    said += [
        f"The column `{name}` numbers folds of cross-validation, and none of them is held out: give a column `split` with train and val."
        for name, words in sorted(count.items())
        if {"fold", "folds", "kfold", "cv"} & set(name.split("_")) and all(NUMBER.fullmatch(word.casefold()) for word in words)
    ]
    return {name for name, words in count.items() if name not in quality and _speaks(name, words)}, said


def _trues(words: Mapping[str, int]) -> int:
    return sum(number for word, number in words.items() if word.startswith("true ("))


def _is_quality(words: Mapping[str, int]) -> bool:
    """Whether a boolean `valid` is true in most rows, so that it says which pictures are sound."""
    return any(word.startswith("true (valid") for word in words) and 2 * _trues(words) > sum(words.values())


def _speaks(name: str, words: Iterable[str]) -> bool:
    kinds = [(word, *split_word(word)) for word in words]
    held = [(word, rest) for word, kind, _, rest in kinds if kind == "val"]
    train = [(word, rest) for word, kind, _, rest in kinds if kind == "train"]
    if _flag(name) and any("(" in word for word, _ in (*held, *train)):
        return bool(held)
    bare = any(not rest for _, rest in held)
    if is_called(name):  # `train` and others, too
        return bare or bool(held and train) or any(not rest for _, rest in train)
    pairs = {rest for _, rest in held} & {rest for _, rest in train}
    return bool(held and train) and all(kind for _, kind, _, _ in kinds) and (bare or bool(pairs) or any(not rest for _, rest in train))
