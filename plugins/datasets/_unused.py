"""Tables that say nothing of a split's pictures stop a command, and those that are not used are named, many of one reason in one sentence."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from ldmctl.errors import DataError

from ._labels import joined
from ._matching import Matched
from ._names import counted, listed, shown
from ._split_lists import is_list
from ._splits import Splits
from ._tables import Table

EACH = 3  # tables that are not used for one reason and named in a sentence each


def unused(reasons: Mapping[str, str]) -> list[str]:
    """Sentences on tables that are not used, by path and reason; a reason that is '' makes its key the sentence."""
    groups: dict[tuple[bool, str], list[str]] = defaultdict(list)  # those that are called as splits are stand apart
    for path, why in reasons.items():
        groups[is_list(path), re.sub(r"\d+|'[^']*'|\(.*|(?<=; found ).*", "", why)].append(path)
    said = []
    for paths in groups.values():
        first = paths[0]
        if len(paths) <= EACH or not reasons[first]:
            said += [f"{shown(path)} is not used: {reasons[path].rstrip('.')}." if reasons[path] else path for path in paths]
        else:
            said.append(f"{len(paths):,} tables are not used, the first {shown(first)}: {reasons[first].rstrip('.')}.")
    return said


def refuse_without(root: Path, tables: list[Table], splits: Splits, matched: Matched, by_folder: dict[str, str]) -> None:
    """A split without a single row is a DataError; one that is held out, where a table called metadata lies above it or has rows too many."""
    named = [table for table in tables if table.named]
    sets = {"train": splits.train, "val": splits.val} if splits.by_folder else {"train": sorted([*splits.train, *splits.val])}
    told = {path: note.label for path, note in matched.notes.items() if note.label is not None}
    if told and joined(by_folder, told, splits):
        sets.pop("train", None)  # whose folders are its classes
    table = (named or tables)[0]
    where = shown(str(root / table.path))
    if named and not any(file.path in matched.notes for file in (*splits.train, *splits.val)):
        total = len(splits.train) + len(splits.val)
        first = f"its first is {shown(str((root / table.path).parent / table.rows[0].name))}"
        if several := next((each for each in matched.doubtful if each[0] == table.path), None):
            first = f"line {several[1].line}, {shown(several[1].name)}, may be {listed(several[2])}"
        raise DataError(f"{where} names none of the {total} pictures found; {first}.")
    for split, files in sets.items():
        over = any(file.path.startswith(f"{each.folder}/" if each.folder else "") for each in named for file in files)
        checked = split == "train" or (named and splits.by_folder and (over or matched.strange or matched.doubtful))
        if checked and files and not any(file.path in matched.notes for file in files):
            first = matched.strange[0] if matched.strange else None
            example = (
                f" The first row that names no picture is line {first[1].line} of {shown(first[0])}: {shown(first[1].name)}."
                if first
                else ""
            )
            tops = splits.tops(splits.train)
            apart = (
                f" Where {split} is to have none, move the table into {shown(tops[0])}/."
                if split == "val" and len(tops) == 1 and tops[0] and not matched.strange
                else ""
            )
            raise DataError(
                f"None of the {counted(len(files), 'picture')} of {split} has a row in {listed(each.path for each in tables)}: the first "
                f"is {shown(files[0].path)}.{example} Mend the paths, which are relative to the table, or give dataset.tables=false to "
                f"do without labels and captions of tables.{apart}"
            )
