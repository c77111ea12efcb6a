"""Files that may hold labels or captions in a form that is not read, so that nobody takes them for read."""

import re
from collections.abc import Iterable

from ._captions import OTHERS
from ._formats import ending
from ._names import counted, listed
from ._tables import SUFFIXES
from ._tree import File, once

ALWAYS = frozenset([".xls", ".xlsx", ".ods", ".db", ".sqlite", ".sqlite3", ".pkl", ".pickle", ".mat", ".h5", ".hdf5"])
BY_NAME = frozenset(
    [".xml", ".yaml", ".yml", ".toml", ".npy", ".npz", ".pt", ".bin", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"]
)
NAMED = re.compile(r"(^|/)(labels?|captions?|meta|metadata|annotations?)(?![a-z])[^/]*(/[^/]*)?$", re.IGNORECASE)  # the file, or its folder
PACKED = tuple(suffix + packed for suffix in SUFFIXES for packed in (".gz", ".bz2", ".xz", ".zst", ".zip"))
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
    return lower.endswith(PACKED) or (suffix in BY_NAME and bool(NAMED.search(path)))
