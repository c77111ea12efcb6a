"""Classes by folders: the first sub-folder below a split, where there are two or more."""

from collections import defaultdict
from collections.abc import Iterable

from ._names import composed, listed, natural
from ._splits import Splits
from ._tree import File


def without_splits(splits: Splits, pictures: Iterable[File]) -> dict[str, tuple[str, ...]]:
    """Each picture's path without the folders that name a split, then also without more and more of those that lie above all pictures in use."""
    parts = {file.path: splits.parts(file) for file in pictures}
    used = [parts[file.path] for file in (*splits.train, *splits.val)]
    above = 0
    while used and all(len(folders) > above and folders[above] == used[0][above] for folders in used):
        above += 1
    top = used[0][:above] if used else []
    return {
        path: tuple("/".join([*folders[start:], path.rpartition("/")[2]]) for start in range((above if folders[:above] == top else 0) + 1))
        for path, folders in parts.items()
    }


def class_folders(used: Iterable[File], reduced: dict[str, tuple[str, ...]]) -> tuple[dict[str, str], str]:
    """(the label of each picture by its folder, a sentence); ({}, "") where there are not two of them."""
    shortest = {file.path: reduced[file.path][-1] for file in used}
    labels = {path: composed(short.partition("/")[0]) for path, short in shortest.items() if "/" in short}
    names = natural(labels.values())
    if len(names) < 2:
        return {}, ""
    same: dict[str, list[str]] = defaultdict(list)
    for name in names:
        same[name.casefold()].append(name)
    twice = [" and ".join(each) for each in same.values() if len(each) > 1]
    return labels, f"Classes by folder: {listed(names)}." + (f" {listed(twice)} differ in case alone and are two classes." if twice else "")
