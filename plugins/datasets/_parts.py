"""Folders that number the parts of a set, or of which each has one picture: `images_001`, `00000`, `101CANON`, `2019/05`, `patient00012` are no classes."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ._names import counted, listed, natural
from ._splits import FILLERS

NUMBERED = re.compile(r"(.*?)[\s_.-]*\d+")
WORDS = "part parts shard shards chunk chunks batch batches zip volume vol disc from patient subject slide scan study"
PART = frozenset(WORDS.split())
DATE = re.compile(r"(?:19|20)\d\d(?:([\s_.-]?)(?:0[1-9]|1[0-2])(?:\1(?:[0-2]\d|3[01]))?)?")
AGAIN = re.compile(r"(.+?)(?:[\s_-]+\d|\s*\(\d+\))")  # `VG_100K_2` beside `VG_100K`, `photos (1)` beside `photos`
CAMERA = re.compile(r"[1-9]\d\d[A-Z0-9_]{5}")  # as cameras call folders (DCF): 100CANON, 101APPLE
WIDTH = 5  # digits of a folder of files that are numbered through: 00000/00000.png, 01000/01000.png
ENDS = 3  # digits by which a picture is sorted into a folder: 0123/4123.jpg
MANY = 8  # folders, of which each has one picture


def numbered(folders: Mapping[str, Sequence[str]]) -> set[str]:
    """The names of folders that number parts, where there are two or more of a kind; `folders` are those above each picture, by path."""
    kinds: dict[str, set[str]] = defaultdict(set)
    every = {part for parts in folders.values() for part in parts}
    for name in every:
        found = NUMBERED.fullmatch(name)
        if DATE.fullmatch(name):
            kinds["date"].add(name)
        elif CAMERA.fullmatch(name):
            kinds["camera"].add(name)
        elif name.isdecimal():
            kinds["digits"].add(name)
        elif found and _last_word(found[1]) in PART | FILLERS:
            kinds[f"_{found[1].casefold()}"].add(name)
        elif (again := AGAIN.fullmatch(name)) and again[1] in every and _are_beside(again[1], name, folders):
            kinds[f"={again[1]}"] |= {name, again[1]}
    kinds["date"] |= _months(folders) if len(kinds["date"]) > 1 else set()
    if not _are_shards(kinds["digits"], folders):
        del kinds["digits"]
    return {name for names in kinds.values() if len(names) > 1 for name in names}


def _are_beside(one: str, other: str, folders: Mapping[str, Sequence[str]]) -> bool:
    """Whether two folders lie in the same."""
    above = [{tuple(parts[: parts.index(name)]) for parts in folders.values() if name in parts} for name in (one, other)]
    return not above[0].isdisjoint(above[1])


def _months(folders: Mapping[str, Sequence[str]]) -> set[str]:
    """Folders of two digits in those of dates: `05` of `2019/05`."""
    pairs = {pair for parts in folders.values() for pair in itertools.pairwise(parts)}
    return {name for above, name in pairs if re.fullmatch(r"\d{1,2}", name) and (DATE.fullmatch(above) or re.fullmatch(r"\d{1,2}", above))}


def _last_word(text: str) -> str:
    return ([""] + [word for word in re.split(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])", text) if word])[-1].casefold()


def _are_shards(names: set[str], folders: Mapping[str, Sequence[str]]) -> bool:
    """Whether the pictures in such folders are numbered through, or sorted by the end of their numbers."""
    width = len(next(iter(names), ""))
    if len(names) < 2 or width < ENDS or any(len(name) != width for name in names):
        return False
    inside: dict[str, list[str]] = defaultdict(list)
    for path, parts in folders.items():
        if name := next((part for part in parts if part in names), ""):
            numbers = re.findall(r"\d+", path.rpartition("/")[2].rpartition(".")[0])
            inside[name].append(numbers[-1] if numbers else "")
    if not all(all(numbers) for numbers in inside.values()):
        return False
    ends = all(number.endswith(name[-ENDS:]) and number != name for name, numbers in inside.items() for number in numbers)
    spans = [(min(map(int, inside[name])), max(map(int, inside[name]))) for name in sorted(names)]
    return ends or (width >= WIDTH and all(one[1] < other[0] for one, other in itertools.pairwise(spans)))


def are_of_one(labels: Mapping[str, str]) -> bool:
    """Whether each of many folders has one picture."""
    return len(labels) > MANY and len(set(labels.values())) == len(labels)


def no_classes(names: Iterable[str], ones: int) -> str:
    """That such folders are no classes; '' where there are none."""
    found = natural(names)
    said = [f"{listed(found)} number parts of the set: they are no classes."] if found else []
    said += [f"Each of {counted(ones, 'folder')} has one picture: they are no classes."] if ones else []
    return " ".join([*said, "If they are classes, a column `label` says so."] if said else [])
