"""From all names of all pictures to two splits that share no file, and the sentences that say so."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable

from ldmctl.errors import DataError

from . import _folds
from ._names import are, counted, listed, shown
from ._splits import Splits, by_names
from ._tree import File

Pair = tuple[File, File]  # a name of a file, and the name by which it is read


def shared_out(pictures: list[File], val_share: float, folders: set[str] | None) -> tuple[Splits, list[str], list[str]]:
    """(the splits, warnings, remarks) of these pictures: by the names of all `folders` unless that is None, otherwise by hash."""
    splits = Splits(train=pictures) if folders is None else by_names(pictures, folders)
    warnings, remarks = _read_once(splits)
    if splits.left:
        warnings += _left_out(splits)
    remarks = [*_decided(splits, val_share), *remarks]
    if not splits.by_folder:
        splits.train, splits.val = by_hash(splits.train, val_share)
    return splits, warnings, remarks


# -- by hash -------------------------------------------------------------------


def by_hash(files: list[File], val_share: float) -> tuple[list[File], list[File]]:
    """(the files to train on, those held out), neither empty where there are two files."""
    place = {file.path: _hash(file.path) for file in files}
    val = {path for path, value in place.items() if value < val_share}
    if len(files) == 1:
        val = set()
    elif val_share > 0 and files:  # no split is left empty
        val = val or {min(place, key=place.__getitem__)}
        val -= {max(place, key=place.__getitem__)}
    return [file for file in files if file.path not in val], [file for file in files if file.path in val]


def _hash(path: str) -> float:
    """A number in [0, 1) that belongs to this path."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "big") / 2**64


# -- one file under several names ----------------------------------------------


def _read_once(splits: Splits) -> tuple[list[str], list[str]]:
    """Keep one name of each file: in the held-out split before the training split, the one no link leads to, the first."""
    seen: dict[tuple[object, ...], File] = {}

    def once(files: list[File]) -> tuple[list[File], list[Pair]]:
        kept, again = [], []
        for file in sorted(files, key=lambda file: (file.linked, file.path)):
            key = (file.same, file.size, file.time)
            first = seen.setdefault(key, file) if file.same is not None else file
            if first is file:
                kept.append(file)
            else:
                again.append((file, first))
        return sorted(kept), again

    splits.val, twice = once(splits.val)
    held = {file.path for file in splits.val}
    splits.train, more = once(splits.train)
    both = [pair for pair in more if pair[1].path in held]
    splits.left, beside = once(splits.left)
    trained = {file.path for file in splits.train}
    kept = {pair[0] for pair in beside if pair[0].path in splits.outranked and pair[1].path in trained}  # which are looked at again
    splits.left, beside = sorted([*splits.left, *kept]), [pair for pair in beside if pair[0] not in kept]
    twice += [pair for pair in more if pair[1].path not in held]
    if both and not splits.train:
        raise DataError(
            f"Every picture to train on is held out too, under another name: {shown(both[0][0].path)} is the file {shown(both[0][1].path)}."
            + (f" {folds}" if (folds := _folds.sentence(both)) else "")
        )
    warnings = [f"{names_are(both)} in the training split and held out as well, and not trained on: {first_of(both)}."] if both else []
    warnings += [folds] if (folds := _folds.sentence(both)) else []
    remarks = [f"{names_are(twice)} there under another name and read once: {first_of(twice)}."] if twice else []
    used = {file.path for file in (*splits.val, *splits.train)}
    if beside := [pair for pair in beside if pair[1].path in used]:
        places = listed(f"{shown(top)}/" for top in splits.tops([pair[0] for pair in beside]))
        remarks.append(f"{names_are(beside)} in the splits already, under other names, and passed over in {places}.")
    return warnings, remarks


def names_are(pairs: list[Pair]) -> str:
    """`1 picture is`, `2 pictures are`."""
    return f"{counted(len(pairs), 'picture')} {'is' if len(pairs) == 1 else 'are'}"


def first_of(pairs: list[Pair]) -> str:
    """The two names of the first."""
    name, kept = (shown(file.path) for file in pairs[0])
    return f"{name} is {kept}" if len(pairs) == 1 else f"the first, {name}, is {kept}"


# -- saying it -----------------------------------------------------------------


def _decided(splits: Splits, val_share: float) -> list[str]:
    """What became of which folder."""
    train, held = _folders(splits.tops(splits.train)), _folders(splits.tops(splits.val))
    share = f"{val_share:.3g}".rstrip("0").rstrip(".") if val_share < 0.001 else f"{val_share:.1%}".replace(".0%", "%")
    if splits.by_folder:
        return [f"Splits by folder: {train or 'all other pictures'} to train on, {held} held out."]
    if train:
        return [f"Splits: {train} to train on; no folder is held out by its name, so {share} of it are, by a hash of each path."]
    if val_share == 0:
        return ["Splits: all pictures are trained on, none is held out (val_share=0)."]
    return [f"Splits: no folder is held out by its name, so {share} of the pictures are, by a hash of each path."]


def _folders(tops: Iterable[str]) -> str:
    return listed(f"{top}/" for top in tops if top)


def _left_out(splits: Splits) -> list[str]:
    """Which pictures belong to neither split, and why."""
    held, train = splits.tops(splits.val), splits.tops(splits.train)
    kept, beside = Counter[str](), Counter[str]()
    first = ""
    for file in splits.left:
        mark = splits.marks[file.folder]
        if mark.rank:
            kept[mark.top] += 1
        else:
            first = first or file.path
            beside[mark.top or file.path.rpartition("/")[0].partition("/")[0]] += 1
    said = []
    for top, count in kept.items():
        said.append(f"{shown(top)}/ ({counted(count, 'picture')}) is left out, because {_folders(held)} {are(len(held))} held out already.")
    if beside:
        count = sum(beside.values())
        places = listed(f"{number:,} in {f'{shown(top)}/' if top else 'the folder itself'}" for top, number in beside.most_common())
        said.append(
            f"{counted(count, 'picture')} beside {_folders([*train, *held])} {'is' if count == 1 else 'are'} left out: {places}; the first "
            f"is {shown(first)}. To use {'it' if count == 1 else 'them'}, move {'it' if count == 1 else 'them'} into a split."
        )
    return said
