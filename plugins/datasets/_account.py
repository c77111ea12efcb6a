"""Sentences on what the tables of a folder say of the pictures in use, and on what of them is not used."""

from collections.abc import Iterable, Mapping, Sequence

from ._matching import Matched
from ._names import counted, listed, shown
from ._splits import Splits
from ._tables import Table


def doubts(tables: Sequence[Table], matched: Matched, splits: Splits) -> list[str]:
    """What is wrong: pictures without a row, rows without a picture or with several, and labels that differ."""
    used = [*splits.train, *splits.val]
    lacking = [file for file in used if file.path not in matched.notes]
    said: list[str] = []
    warnings: list[str] = []
    if lacking:
        verb = "has" if len(lacking) == 1 else "have"
        counts = ", ".join(
            f"{sum(file.path not in matched.notes for file in files):,} of {len(files):,} in {split}"
            for split, files in (("train", splits.train), ("val", splits.val))
            if files
        )
        said.append(f"{len(lacking):,} of {counted(len(used), 'picture')} {verb} no row ({counts}; the first is {shown(lacking[0].path)})")
    if matched.strange:
        path, row = matched.strange[0]
        names = "row names" if len(matched.strange) == 1 else "rows name"
        said.append(f"{len(matched.strange):,} {names} no picture (the first is line {row.line} of {shown(path)}: {shown(row.name)})")
    if said:
        warnings.append(f"{listed(table.path for table in tables)}: {', '.join(said)}.")
    if matched.doubtful:
        path, row, fits = matched.doubtful[0]
        fit = "row fits" if len(matched.doubtful) == 1 else "rows fit"
        warnings.append(
            f"{len(matched.doubtful):,} {fit} several pictures and {'is' if len(matched.doubtful) == 1 else 'are'} not used: the first is line "
            f"{row.line} of {shown(path)}, {shown(row.name)}, which may be {listed(fits)}."
        )
    if matched.torn:
        path, one, other = matched.torn[0]
        verb = "has" if len(matched.torn) == 1 else "have"
        warnings.append(
            f"{counted(len(matched.torn), 'picture')} {verb} two labels, and the last is taken: {shown(path)} is {shown(one)} and {shown(other)}."
        )
    return warnings


def read_from(tables: Sequence[Table], matched: Matched) -> list[str]:
    """Which tables were read, and which of their rows in another spelling."""
    total = sum(len(table.rows) for table in tables)
    every = [row for table in tables for row in table.rows]
    what = (
        "Labels and captions"
        if any(row.label is not None or row.texts for row in every)
        else "Splits"
        if any(row.splits for row in every)
        else ""
    )
    paths, rows = listed(table.path for table in tables), counted(total, "row")
    said = [f"{what} from {paths}: {rows}." if what else f"There is no label and no caption in {paths}: all cells of {rows} are empty."]
    if matched.respelt:
        path, row, picture = matched.respelt[0]
        said.append(
            f"{counted(len(matched.respelt), 'row')} name{'s' if len(matched.respelt) == 1 else ''} a picture in another spelling that only one "
            f"can have: the first, {shown(row.name)} in {shown(path)}, is {shown(picture)}."
        )
    return said


def columns(unused: Mapping[str, Iterable[str]]) -> list[str]:
    """One sentence on the columns of all tables that are not used, by path."""
    found = {path: list(names) for path, names in unused.items()}
    found = {path: names for path, names in found.items() if names}
    if not found:
        return []
    names = dict.fromkeys(name for each in found.values() for name in each)
    return [
        f"Columns of {listed(found)} that are not used: {listed(names)}. Labels are read from `label`, captions from `text`, `caption` or `prompt`."
    ]


def beside(more: Mapping[str, str]) -> list[str]:
    """A sentence on lists, by path, that say more of their pictures than is used; with the first such line of each."""
    if not more:
        return []
    path, line = next(iter(sorted(more.items())))
    of = f"{counted(len(more), 'list')}, the first {shown(path)}," if len(more) > 1 else shown(path)
    return [
        f"Of {of} only the names of pictures are used, not what stands beside them ({shown(line[:60])}): labels and captions are read from tables such as metadata.csv."
    ]
