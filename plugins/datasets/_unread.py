"""Files that may hold labels or captions in a form that is not read, so that nobody takes them for read."""

import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from . import _captions
from ._captions import OTHERS
from ._formats import SUFFIXES as PICTURES
from ._formats import ending
from ._names import are, counted, listed
from ._split_lists import is_list, is_plain
from ._splits import split_word
from ._tables import SUFFIXES
from ._tree import File, once

ALWAYS = frozenset([".xls", ".xlsx", ".ods", ".db", ".sqlite", ".sqlite3", ".pkl", ".pickle", ".mat", ".h5", ".hdf5"])
BY_NAME = frozenset(
    [".xml", ".yaml", ".yml", ".toml", ".npy", ".npz", ".pt", ".bin", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"]
)
OF_SPLITS = re.compile(r"(^|/)[^/]*(?<![a-z])(splits?|partitions?|folds?)(?![a-z])[^/]*$", re.IGNORECASE)
NAMED = re.compile(r"(^|/)(labels?|captions?|meta|metadata|annotations?)(?![a-z])[^/]*(/[^/]*)?$", re.IGNORECASE)  # the file, or its folder
PACKED = tuple(suffix + packed for suffix in SUFFIXES for packed in (".gz", ".bz2", ".xz", ".zst", ".zip"))
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
SETTINGS = (".yaml", ".yml", ".data")
SETTING = re.compile(r"^[ \t]*(\w+)[ \t]*[:=]", re.MULTILINE)  # the word in front of a value
LISTS = (".txt", ".lst", ".list", ".dat", "")  # endings of texts that may name pictures
MOST = 32  # texts that are opened
HEAD = 64  # lines of each that are looked at
OF_A_SYSTEM = ("thumbs.db",)  # also ehthumbs.db


def tables(others: Iterable[File], pictures: Iterable[str]) -> list[str]:
    """One sentence on such files, by their endings and names; those beside a picture of the same name are no tables."""
    perhaps = [file for file in others if file.size and _may_be_table(file.path)]
    stems = {path.rpartition(".")[0] for path in pictures} if perhaps else set()
    found = [file.path for file in once(perhaps) if ending(file.path) not in OTHERS or file.path.rpartition(".")[0] not in stems]
    if not found:
        return []
    is_, them = ("is", "it") if len(found) == 1 else ("are", "them")
    read = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    return [
        f"{counted(len(found), 'file')} that may hold labels or captions {is_} not read: {listed(found)}. Tables end in {read}; save {them} so."
    ]


def _may_be_table(path: str) -> bool:
    lower, suffix = path.lower(), ending(path)
    if suffix in ALWAYS:
        return not lower.endswith(OF_A_SYSTEM)
    if suffix in BY_NAME and suffix not in ARCHIVES and (OF_SPLITS.search(path) or is_list(path)):
        return True
    return lower.endswith(PACKED) or (suffix in BY_NAME and bool(NAMED.search(path)))


def splits(root: Path, others: Iterable[File]) -> list[str]:
    """A sentence on settings of other programs that say where each split lies, as `data.yaml` of YOLO does."""
    files = [file for file in once(others) if file.size and ending(file.path) in SETTINGS and not _may_be_table(file.path)]
    found = [file.path for file in files[:MOST] if _names_splits(_captions.head(root / file.path))]
    if not found:
        return []
    return [
        f"{listed(found)} may name splits and {are(len(found))} not read: folders called train and val, or lists such as train.txt and val.txt, say what is "
        "held out."
    ]


def split_lists(called: Iterable[str], heard: Container[str]) -> list[str]:
    """A sentence on texts that are called as lists of splits are, and were not heard as such."""
    found = [path for path in called if path not in heard and is_plain(path)]
    if not found:
        return []
    has, them = ("has the name", "it") if len(found) == 1 else ("have the name", "them")
    return [f"{listed(found)} {has} of a split, but no picture that is here is named in {them}."]


def _names_splits(text: str) -> bool:
    """Whether settings have those of a training and of a held-out split, and not only such as `train_batch`."""
    return {kind for kind, _, rest in map(split_word, SETTING.findall(text)) if not rest} >= {"train", "val"}


def archives(others: Iterable[File]) -> list[str]:
    """A sentence on archives, in which pictures may lie; those that may hold labels are named by `tables`."""
    found = [file.path for file in once(others) if file.path.lower().endswith(ARCHIVES) and not _may_be_table(file.path)]
    if not found:
        return []
    them = "it" if len(found) == 1 else "them"
    return [f"{counted(len(found), 'archive')} {are(len(found))} not read: {listed(found)}. Unpack {them} if pictures are inside."]


def lists(root: Path, others: Iterable[File], pictures: Sequence[str]) -> set[str]:
    """The texts, by path, that name pictures line by line and say more of them; those of too many are not looked at."""
    stems = {path.rpartition(".")[0] for path in pictures} | set(pictures)
    texts = [
        file
        for file in once(others)
        if file.size and ending(file.path) in LISTS and file.path.rpartition(".")[0] not in stems and file.path not in stems
    ]
    if not texts or len(texts) > MOST:
        return set()
    names = {stem.rpartition("/")[2].casefold() for stem in stems}
    return {file.path for file in texts if _names_pictures(root / file.path, names)}


def _names_pictures(file: Path, names: set[str]) -> bool:
    """Whether half of the first lines begin with the name of a picture, and go on or end as it does; what is but a number names none."""
    parts = [re.split(r"[\s,;|#]+", line.strip(), maxsplit=1) for line in _captions.head(file).splitlines()[:HEAD]]
    lines = [words[0] for words in parts if len(words) == 2 or ending(words[0]) in PICTURES]
    known = [first for first in lines if first.replace("\\", "/").rpartition("/")[2].casefold() in names and not first.isdecimal()]
    return len(known) > 1 and 2 * len(known) >= len(lines)


def said(unheard: Iterable[str]) -> list[str]:
    """A sentence on such texts."""
    found = sorted(unheard)
    if not found:
        return []
    names = "names" if len(found) == 1 else "name"
    return [
        f"{counted(len(found), 'text file')} {names} pictures and {are(len(found))} not read: {listed(found)}. Labels and captions are read from tables "
        "with `file_name` and `label` or `text`, such as metadata.csv, and splits from lists such as train.txt and val.txt."
    ]
