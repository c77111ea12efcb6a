"""Splits by a column of a table, `split` or `subset`, where every value in it is the usual name of a split."""

from collections import Counter
from collections.abc import Mapping

from ldmctl.errors import DataError

from ._names import counted, listed, shown
from ._splits import Splits, split_word


def apply(splits: Splits, named: Mapping[str, str], columns: set[str]) -> tuple[list[str], list[str]]:
    """Move pictures to the split that tables name (`named`, by path), where folders have not decided. -> (remarks in place of the earlier one, warnings)."""
    words = {value: split_word(value) for value in set(named.values())}
    column = listed(f"`{name}`" for name in sorted(columns))
    if not named or any(not kind or rest for kind, _, rest in words.values()):
        unknown = sorted(value for value, (kind, _, rest) in words.items() if not kind or rest)
        return [], [f"The column {column} is not used: {listed(unknown)} is no usual name of a split."] if unknown else []
    held = [file for file in splits.train if words.get(named.get(file.path, ""), ("", 0, ()))[0] == "val"]
    if splits.by_folder:
        if not held:
            return [], []
        whose, verb = ("its folder", "is") if len(held) == 1 else ("their folders", "are")
        first = f"the first is {shown(held[0].path)}, {shown(named[held[0].path])}"
        who = f"{counted(len(held), 'picture')} of train by {whose} {verb} held out by the column {column}"
        return [], [f"{who}, which is not heard: {first}."]
    every = sorted([*splits.train, *splits.val])
    ranks = {file.path: words[value][1] for file in every if (value := named.get(file.path, "")) and words[value][0] == "val"}
    if not ranks:
        return [], []
    best = min(ranks.values())
    splits.val = [file for file in every if ranks.get(file.path) == best]
    splits.train = [file for file in every if file.path not in ranks]
    if not splits.train:
        raise DataError(
            f"The column {column} holds out every picture; none is left to train on. If it means something else: dataset.tables=false."
        )
    out = Counter(named[file.path] for file in every if ranks.get(file.path, best) != best)
    splits.left = sorted([*splits.left, *(file for file in every if ranks.get(file.path, best) != best)])
    taken = listed(sorted({named[file.path] for file in splits.val}))
    left = [
        f"{counted(count, 'picture')} of `{shown(name)}` {'is' if count == 1 else 'are'} left out, because {taken} is held out already."
        for name, count in out.items()
    ]
    return [f"Splits by the column {column}: {taken} held out, all other pictures to train on."], left
