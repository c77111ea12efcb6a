"""Sentences on folders that are called as those of maps are, and whose pictures are trained on."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ._names import counted, listed, shown


def of_folders(doubtful: Mapping[str, Sequence[str]], used: set[str]) -> list[str]:
    """One for all such folders of a name that have pictures in use; by folder."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for top, paths in sorted(doubtful.items()):
        if not used.isdisjoint(paths):
            by_name[re.sub(r"\d+", "", top.rpartition("/")[2])].append(top)
    said = []
    for tops in by_name.values():
        names = {top.rpartition("/")[2] for top in tops}
        paths = [path for top in tops for path in doubtful[top]]
        one = len(tops) == 1
        folders = (
            f"{shown(tops[0])}/ is called as a folder of maps is, but its"
            if one
            else f"{listed(f'{top}/' for top in tops)} are called as folders of maps are, but their"
        )
        said.append(
            f"{folders} {counted(len(paths), 'picture')} {have(len(paths))} not the names of others, the first {shown(paths[0])}. If they are maps and no "
            f"pictures: dataset.maps={shown(tops[0] if one or len(names) > 1 else names.pop())}."
        )
    return said


def have(count: int) -> str:
    """`has` of one, `have` of several."""
    return "has" if count == 1 else "have"
