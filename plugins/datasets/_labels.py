"""Classes by folders: the first sub-folder below a split, where there are two or more."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping

from . import _folds, _parts
from ._names import counted, hides, listed, natural, shown, unseen, visible
from ._splits import FILLERS, KINDS, Splits
from ._tree import File

UNKNOWN = frozenset(["unknown", "unlabeled", "unlabelled", "unclassified", "nolabel", "all"])  # no class of held-out pictures alone


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


def labels_of(told: Mapping[str, str], words: Iterable[Mapping[str, str]], splits: Splits) -> tuple[dict[str, str], str]:
    """(the label of each picture in use that has one, a sentence on classes by folder): by tables, or by folders where these know none.

    `words` stand beside the names of pictures in lists: they are labels of held-out pictures where they are classes to train on.
    """
    used = {file.path for file in (*splits.train, *splits.val)}
    told = {path: label for path, label in told.items() if path in used}
    by_folder = class_folders(splits)
    parts, ones = _parts.numbered(_folders(splits)), 0
    if _parts.are_of_one(by_folder):
        by_folder, ones = {}, len(by_folder)
    folds = _both(_folds.no_classes(folds_of(splits), by_folder=splits.by_folder), _parts.no_classes(parts, ones))
    if told:
        both = joined(by_folder, told, splits)
        return (both, _both(_sentence(both, splits), folds)) if both else (dict(told), _case(told.values()))
    for each in words:
        found = {path: visible(word) for path, word in each.items() if path in used and path not in by_folder}
        by_folder = (joined(by_folder, found, splits) if found else None) or by_folder
    return by_folder, _both(_sentence(by_folder, splits), folds)


def _both(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def class_folders(splits: Splits) -> dict[str, str]:
    """The label of each picture by its folder; {} where there are not two of them.

    A folder called `images` or the like is no class, but what is in it may be one; `photos` is one where pictures to train on lie there, and
    `images` beside one other folder.
    """
    parts = _folders(splits)
    passed = folds_of(splits) | _parts.numbered(parts)
    parts = {path: [part for part in folders if part not in passed] for path, folders in parts.items()}
    trained = {part.casefold() for file in splits.train for part in parts[file.path][:1]}
    unknown = UNKNOWN - trained if trained else frozenset()
    for empty in (FILLERS - (KINDS & trained) | unknown, FILLERS - trained | unknown):
        found = {path: next((part for part in folders if part.casefold() not in empty), "") for path, folders in parts.items()}
        labels = {path: name for path, part in found.items() if (name := visible(part))}
        if len(set(labels.values())) > 1:
            return labels
    return {}


def _folders(splits: Splits) -> dict[str, list[str]]:
    """The folders of each picture in use, without those that name a split or lie above all, or above all that is trained on beside held-out folders."""
    used = [*splits.train, *splits.val]
    by = {file.folder: file for file in used}
    above = {folder: [name for name, _ in itertools.groupby(splits.parts(file))] for folder, file in by.items()}  # a/a is a
    shared = next((place for place, names in enumerate(zip(*above.values(), strict=False)) if len(set(names)) > 1), None)
    shared = min(map(len, above.values()), default=0) if shared is None else shared
    above = {folder: folders[shared:] for folder, folders in above.items()}
    parts = {file.path: above[file.folder] for file in used}
    if splits.by_folder and not any(splits.tops(splits.train)):
        inside = [above[folder] for folder in {file.folder for file in splits.train}]
        held = {part for file in splits.val for part in parts[file.path][:1]}
        top = 0
        while inside and all(len(folders) > top + 1 and folders[top] == inside[0][top] and folders[top] not in held for folders in inside):
            top += 1
        parts |= {file.path: parts[file.path][top:] for file in splits.train} if top else {}
    return parts


def folds_of(splits: Splits) -> set[str]:
    """The folders of pictures in use that number folds, and are no classes."""
    return _folds.numbered({part for file in (*splits.train, *splits.val) for part in splits.parts(file)})


def _sentence(labels: Mapping[str, str], splits: Splits) -> str:
    names = natural(labels.values())
    if not names:
        return ""
    lacking = [file.path for file in (*splits.train, *splits.val) if file.path not in labels]
    none = (
        f" {counted(len(lacking), 'picture')} {'has' if len(lacking) == 1 else 'have'} none, the first {shown(lacking[0])}."
        if lacking
        else ""
    )
    written = {part for folders in _folders(splits).values() for part in folders}
    respelt = {visible(part): part for part in sorted(written) if hides(part) and visible(part) in names}
    return _both(f"Classes by folder: {listed(names)}.{none}", _case(names), unseen(respelt))


def _case(names: Iterable[str]) -> str:
    """A sentence on classes whose names differ in case alone; '' where there are none."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in natural(names):
        same[name.casefold()].append(name)
    twice = [" and ".join(each) for each in same.values() if len(each) > 1]
    return (
        f"{listed(twice)} differ in case alone and are {'two' if max(map(len, same.values())) == 2 else 'several'} classes."
        if twice
        else ""
    )


def joined(by_folder: dict[str, str], told: Mapping[str, str], splits: Splits) -> dict[str, str] | None:
    """Classes by folder with those that tables tell of held-out pictures alone, where these are the same classes; None where they are not."""
    train, known = {file.path for file in splits.train}, {by_folder[file.path] for file in splits.train if file.path in by_folder}
    if not known or not train.isdisjoint(told) or not set(told.values()) <= known:
        return None
    return {**{path: label for path, label in by_folder.items() if path in train or label in known}, **told}


def held_out_alone(labels: Mapping[str, str], splits: Splits) -> list[str]:
    """A sentence on classes that occur in held-out pictures and in none to train on."""
    train = {labels[file.path] for file in splits.train if file.path in labels}
    alone = natural({labels[file.path] for file in splits.val if file.path in labels} - train) if train else []
    if not alone:
        return []
    noun, occur = ("class", "occurs") if len(alone) == 1 else ("classes", "occur")
    return [
        f"{len(alone):,} {noun} {occur} in held-out pictures alone, so that nothing is learnt of {'it' if len(alone) == 1 else 'them'}: {listed(alone)}."
    ]
