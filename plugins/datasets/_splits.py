"""Which pictures are trained on and which are held out, by the names of folders or by a hash of each path.

A folder with sub-folders for both (`train/` and `val/`, `training/` and `eval/`,
`seg_train/` and `seg_test/`) splits what is in them, wherever it lies, and what
lies beside them belongs to neither. A folder for held-out pictures alone holds
these out of all others. Nothing in a folder of held-out pictures is trained on;
in a training split such a folder is left out, unless it is a class that the
held-out split has too.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ldmctl.errors import DataError

from ._names import listed, visible
from ._tree import File

TRAIN = frozenset({"train", "training", "trn", "trainval"})
HELD = {"val": 0, "valid": 0, "validation": 0, "validate": 0, "dev": 1, "devel": 1, "heldout": 2, "holdout": 2, "eval": 3, "evaluation": 3}
HELD |= {"test": 4, "tests": 4, "testing": 4, "tst": 4}  # the lowest that is there is taken
HELD |= {"valtest": 0, "testval": 0, "minival": 0, "testdev": 1, "devtest": 1}
SHORT = {"tr": ("train", 0), "trn": ("train", 0), "va": ("val", 0), "vl": ("val", 0), "te": ("val", 4), "ts": ("val", 4), "tst": ("val", 4)}
SEARCHED = frozenset(["query", "gallery", "probe"])  # beside a training split: pictures in which others are looked for
WORDS = "set sets split data dataset images image imgs img pictures pics photos samples files folder"
FILLERS = frozenset(WORDS.split())  # that say nothing about a folder
KINDS = frozenset(["photos", "pictures", "pics", "samples"])  # words that may be a class, beside paintings

FOLDS = frozenset(["fold", "cv", "part", "round", "run"])  # words that number folders


@dataclass(frozen=True)
class Mark:
    """What a folder's name makes of the pictures in it."""

    split: str = ""  # "train", "val", "left" (beside a split), or "" where no name has decided
    rank: int = 0  # of HELD
    top: str = ""  # the folder that says so
    cut: tuple[int, ...] = ()  # which parts of its path name a split
    classes: tuple[tuple[int, str], ...] = ()  # what else is said by a part that names a split too, by place: `cats` of `cats_train`
    alone: bool = False  # a training split without a held-out one beside it


@dataclass
class Splits:
    """Pictures by what becomes of them, each list sorted by path."""

    train: list[File] = field(default_factory=list)
    val: list[File] = field(default_factory=list)
    left: list[File] = field(default_factory=list)  # neither
    by_folder: bool = False  # whether held-out pictures are those of a folder
    marks: dict[str, Mark] = field(default_factory=dict)  # by folder
    outranked: set[str] = field(default_factory=set)  # pictures in `left` that are held out by a name, after those of `val`

    def parts(self, file: File) -> list[str]:
        """The folders of a file without those that name a split, or without the word in them that does."""
        mark = self.marks.get(file.folder, Mark())
        classes = dict(mark.classes)
        return [
            classes.get(place, part) for place, part in enumerate(file.path.split("/")[:-1]) if place not in mark.cut or place in classes
        ]

    def tops(self, files: list[File]) -> list[str]:
        """The folders that said what becomes of these files."""
        return sorted({self.marks[file.folder].top for file in files if file.folder in self.marks})


@lru_cache(maxsize=4096)
def split_word(name: str) -> tuple[str, int, tuple[str, ...]]:
    """("train" | "val" | "", rank in HELD, the other words) of a folder's name: `seg_train`, `trainA`, `val2017`, `Test Set`, `test-dev`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", visible(name)).casefold()
    words = " ".join(word for word in re.split(r"[\W\d_]+", spaced) if word and word not in FILLERS)
    for apart, joined in (("hold out", "holdout"), ("held out", "heldout"), ("train val", "trainval")):
        words = words.replace(apart, joined)
    words = " ".join(map(_without_filler, words.split()))
    known = [word for word in words.split() if word in TRAIN or word in HELD]
    if len({word in TRAIN for word in known}) != 1:  # none, or words of both kinds
        return "", 0, ()
    rest = tuple(word for word in words.split() if word not in known)
    return ("train", 0, rest) if known[0] in TRAIN else ("val", min(HELD[word] for word in known), rest)


def _without_filler(word: str) -> str:
    """`train` of `trainset` or `imagestrain`; other words as they are."""
    bare = (cut for filler in FILLERS for cut in (word.removesuffix(filler), word.removeprefix(filler)))
    return next((cut for cut in bare if cut in TRAIN or cut in HELD), word)


def by_names(pictures: list[File], folders: Collection[str] = ()) -> Splits:
    """What the names of folders make of these pictures; only held-out ones are a DataError. `folders` are all, also those without pictures."""
    lacking = {folder for folder in folders if split_word(folder.rpartition("/")[2])[::2] == ("train", ())}
    marks = _marks({file.folder for file in pictures}, {folder.rpartition("/")[0] for folder in lacking})
    groups: dict[str, list[File]] = defaultdict(list)
    for file in pictures:
        groups[marks[file.folder].split].append(file)
    undecided = groups[""]
    outranked = {file.path for file in groups["left"] if marks[file.folder].rank}
    if not groups["val"] and not groups["train"]:
        return Splits(train=pictures)
    if not groups["train"] and not undecided:
        empty = listed(f"{folder}/" for folder in sorted(lacking))
        none = f"no picture that is read lies in {empty}" if lacking else "there is none to train on, such as train/"
        held = sorted({mark.top for mark in marks.values() if mark.top and mark.split != "train"})
        are, their = ("are folders", "their names") if len(held) > 1 else ("is a folder", "its name")
        raise DataError(
            f"{listed(f'{top}/' for top in held)} {are} of held-out pictures by {their}, and {none}. If these names mean nothing: dataset.split_by=hash."
        )
    if groups["train"]:
        left = sorted([*groups["left"], *undecided])
        return Splits(groups["train"], groups["val"], left, bool(groups["val"]), marks, outranked)
    return Splits(undecided, groups["val"], groups["left"], True, marks, outranked)


def _marks(own: set[str], lacking: Collection[str] = ()) -> dict[str, Mark]:
    """What is decided of each folder, where those in `own` hold pictures, and those in `lacking` a training split that holds none."""
    below: dict[str, set[str]] = defaultdict(set)  # sub-folders that hold pictures at any depth
    for folder in own:
        while folder and folder not in below[parent := folder.rpartition("/")[0]]:
            below[parent].add(folder)
            folder = parent
    root = ""
    while root not in own and len(below[root]) == 1:
        (inner,) = below[root]
        if root in lacking and split_word(inner.rpartition("/")[2])[0] == "val":
            break
        root = inner
    marks, waiting = {}, [(root, Mark())]
    while waiting:
        folder, mark = waiting.pop()
        decided = _decide(folder, mark, below, at_root=folder == root)
        marks[folder] = decided.get(folder, mark)
        waiting += [(each, decided.get(each, mark)) for each in below[folder]]
    marks |= _held_inside(marks)
    best = min((mark.rank for mark in marks.values() if mark.split == "val"), default=0)
    return {folder: replace(mark, split="left") if mark.split == "val" and mark.rank > best else mark for folder, mark in marks.items()}


def _held_inside(marks: dict[str, Mark]) -> dict[str, Mark]:
    """The folders of a training split that are called as held-out ones are, and are no class, as the held-out split has none of the name."""
    held = [(folder.casefold().split("/"), mark.cut) for folder, mark in marks.items() if mark.split == "val"]
    classes = {part for parts, cut in held for place, part in enumerate(parts) if place not in cut}
    out: dict[str, Mark] = {}
    for folder, mark in marks.items():  # from above
        parent, _, name = folder.rpartition("/")
        kind, rank, rest = split_word(name)
        if parent in out:
            out[folder] = out[parent]
        elif held and mark.split == "train" and kind == "val" and not rest and folder != mark.top and name.casefold() not in classes:
            out[folder] = Mark("left", max(rank, 1), folder)  # like one that ranks after the split that is held out
    return out


def _decide(folder: str, mark: Mark, below: dict[str, set[str]], *, at_root: bool) -> dict[str, Mark]:
    """The marks that change in a folder: those of sub-folders, and of the pictures that lie in it themselves."""
    if mark.split in ("val", "left"):
        return {}
    inside = sorted(below[folder], key=os.fsencode)
    words = _words(inside)
    named = {each: Mark(kind, rank, each, (*mark.cut, *_cut(each, below))) for each, (kind, rank, _) in words.items() if kind}
    rest = {kind: {words[each][2] for each in inside if words[each][0] == kind} for kind in ("train", "val")}
    if shared := rest["train"] & rest["val"]:
        beside = {each: Mark("left", top=each) for each in (folder, *inside)}
        return beside | _with_classes({each: named[each] for each in named if words[each][2] in shared}, below)
    if mark.split and not mark.alone:
        return {}
    one = len(rest["train"]) == 1 or () in rest["train"]  # steam_train/ and model_train/ are classes
    if rest["val"] and one and len(named) == len(inside):  # train/ and val_clean/
        return {folder: Mark("left", top=folder)} | named
    plain = {each: found for each, found in named.items() if not words[each][2]}
    if any(found.split == "val" for found in plain.values()):
        return {each: found for each, found in plain.items() if found.split == "val"}
    held = {each: found for each, found in named.items() if found.split == "val" and (rest["train"] or _is_held_twice(words, each))}
    if at_root and plain and _splits_alone(list(plain), inside, below):
        beside = {each: Mark("left", top=each) for each in (folder, *inside)}
        return beside | {each: replace(found, alone=not held) for each, found in plain.items()} | held
    return held


def _is_held_twice(words: dict[str, tuple[str, int, tuple[str, ...]]], folder: str) -> bool:
    """Whether a folder beside it is held out by another word, and is called the same otherwise: `val_large` and `test_large`."""
    _, rank, rest = words[folder]
    return bool(rest) and any(kind == "val" and other != rank and also == rest for kind, other, also in words.values())


def _words(inside: list[str]) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    """What the names of folders in one say of splits: also `tr` and `te` alone, and `query` and `gallery` beside `train`."""
    names = {each: each.rpartition("/")[2].casefold() for each in inside}
    if short := short_words(set(names.values())):
        return {each: (*short[name], ()) for each, name in names.items()}
    words = {each: split_word(each.rpartition("/")[2]) for each in inside}
    if any(kind == "train" and not rest for kind, _, rest in words.values()):
        words |= {each: ("val", 5, ()) for each, name in names.items() if name in SEARCHED}
    return words


def short_words(names: Collection[str]) -> dict[str, tuple[str, int]]:
    """What `tr`, `va` and `te` mean where they stand together, and with no other name; {} where they do not."""
    found = {name: SHORT[name] for name in names if name in SHORT}
    return found if len(found) == len({*names}) and {kind for kind, _ in found.values()} == {"train", "val"} else {}


def _with_classes(named: dict[str, Mark], below: dict[str, set[str]]) -> dict[str, Mark]:
    """The same, with the other words of `cats_train`, `dogs_train` and their held-out folders as classes, unless classes lie in these."""
    words = {each: "" if (name := each.rpartition("/")[2]).casefold() in SHORT else other_words(name) for each in named}
    inner = {f"{each}/{each.rpartition('/')[2]}" for each in named}  # what an archive doubled
    inside = {folder for each in named for folder in below[each]} - inner
    if inside or not all(words.values()) or len({word.casefold() for word in words.values()}) < 2:
        return named
    return {each: replace(mark, classes=(*mark.classes, (each.count("/"), words[each]))) for each, mark in named.items()}


def other_words(name: str) -> str:
    """`cats` of `cats_train`, `class2` of `val_class2`, `A` of `trainA`; '' where there are none, or they number a fold."""
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", visible(name)) if word]
    plain = [re.sub(r"\d+", "", word.casefold()) for word in words]
    known = {"hold", "held", "out"} if {"hold", "held"} & set(plain) and "out" in plain else set[str]()
    known |= {word for word in plain if word in FILLERS or (bare := _without_filler(word)) in TRAIN or bare in HELD}
    kept = [word for word, bare in zip(words, plain, strict=True) if bare not in known]
    return "_".join(kept) if any(bare not in {*known, *FOLDS, ""} for bare in plain) else ""


def _cut(top: str, below: dict[str, set[str]]) -> Iterator[int]:
    """Which parts of the paths below name the split: that of the folder itself, and of one of the same name that is all that it holds."""
    yield top.count("/")
    inner = f"{top}/{top.rpartition('/')[2]}"
    if below[top] == {inner}:
        yield from _cut(inner, below)


def _splits_alone(train: list[str], inside: list[str], below: dict[str, set[str]]) -> bool:
    """Whether folders called train, with none for held-out pictures, are the training split and not a class among others."""
    vehicle = [each.rpartition("/")[2].casefold() for each in train] == ["train"]
    return len(inside) == len(train) or any(below[each] for each in train) or not vehicle
