"""What lies below a folder, each file by every name that leads to it.

Links are followed; one that leads to a folder above itself is not. Folders that
may not be read are left out. Both are reported, and nothing depends on the
order in which the system lists a folder.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ldmctl.errors import DataError

from ._names import counted, listed, shown

OF_SYSTEMS = frozenset(["@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information"])  # thumbnails, and what was deleted
PREVIEWS = ".lrdata"  # what Lightroom keeps of pictures that lie elsewhere
AGAIN = 16  # names by which one folder is looked into


class File(NamedTuple):
    """One file below the root."""

    path: str  # relative, with slashes
    size: int  # bytes
    time: int  # ns
    same: tuple[int, int] | None = None  # device and number, equal for all names of one file; None where the system has none
    linked: bool = False  # whether a link leads to it

    @property
    def folder(self) -> str:
        """`a/b` of `a/b/c.png`, '' at the root."""
        return self.path.rpartition("/")[0]


@dataclass
class Tree:
    """Files below a root, sorted by path, and what was not looked at; folders end in a slash."""

    files: list[File] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)  # (folder, why it cannot be read)
    nowhere: list[str] = field(default_factory=list)  # neither files nor folders, such as links to nothing
    hidden: list[str] = field(default_factory=list)
    upwards: list[str] = field(default_factory=list)  # links to a folder above them
    empty: list[str] = field(default_factory=list)  # folders that hold nothing at all
    often: list[str] = field(default_factory=list)  # folders that too many links lead to

    def folders(self) -> set[str]:
        """Every folder that is named, also those that hold no file or cannot be read, and links to nothing."""
        others = (*self.empty, *self.upwards, *self.often, *self.nowhere, *(folder for folder, _ in self.closed))
        found = {file.folder for file in self.files} | {path.rstrip("/") for path in others}
        return {above for folder in found for above in (folder, *(str(each) for each in PurePosixPath(folder).parents)) if above != "."}

    def warnings(self) -> list[str]:
        """A sentence for each kind of thing that was left out."""
        said = []
        for folder, why in self.closed[:3]:
            said.append(f"The folder {shown(folder)} cannot be read ({why}) and is left out.")
        if len(self.closed) > 3:
            said.append(f"{counted(len(self.closed) - 3, 'more folder')} cannot be read and are left out.")
        if self.nowhere:
            said.append(f"{counted(len(self.nowhere), 'link or special file')} cannot be opened, the first {shown(self.nowhere[0])}.")
        if self.often:
            said.append(f"Links lead to one folder by more than {AGAIN} names; {listed(self.often)} and what is below is left out.")
        return said

    def remarks(self, suffixes: set[str]) -> list[str]:
        """The same of what is left out by habit."""
        hidden = [path for path in self.hidden if path.endswith("/") or os.path.splitext(path)[1].lower() in suffixes]
        said = [f"Hidden files and folders are left out: {listed(hidden)}."] if hidden else []
        if self.empty:
            verb = "holds" if len(self.empty) == 1 else "hold"
            said.append(f"{counted(len(self.empty), 'folder')} {verb} nothing: {listed(self.empty)}.")
        if self.upwards:
            said.append(f"Links to a folder above them are not followed: {listed(self.upwards)}.")
        return said


def scan(root: Path) -> Tree:
    """Everything below a root; one that is a file or cannot be read is a DataError."""
    if not root.is_dir():
        raise DataError(f"{root} is a file; a folder of pictures was expected. Unpack archives first.")
    tree = Tree()
    tree.files = sorted(_walk(root, tree))
    if tree.closed and tree.closed[0][0] == "":
        raise DataError(f"The folder {root} cannot be read: {tree.closed[0][1]}.")
    return tree


def _walk(root: Path, tree: Tree) -> Iterator[File]:
    waiting: deque[tuple[str, str, tuple[tuple[int, int], ...], bool]] = deque([("", os.fspath(root), (), False)])
    links: deque[tuple[str, str, tuple[tuple[int, int], ...], bool]] = deque()  # when all else has been seen, the shortest first
    visits: Counter[tuple[int, int]] = Counter()
    while waiting or links:
        prefix, folder, above, linked = (waiting or links).popleft()
        met = tree if not above or visits[above[-1]] == 1 else Tree()  # by its second name a folder is not reported again
        try:
            info = os.stat(folder)
            here = (info.st_dev, info.st_ino)
            if info.st_ino and (here in above or visits[here] >= AGAIN):
                (met.upwards if here in above else tree.often).append(prefix)
                continue
            visits[here] += 1
            with os.scandir(folder) as listing:
                entries = sorted(
                    listing,
                    key=lambda entry: os.fsencode(entry.name),
                )
        except OSError as error:
            met.closed.append((prefix, error.strerror or str(error)))
            continue
        if not entries and prefix:
            met.empty.append(prefix)
        for entry in entries:
            if entry.name == "__MACOSX" or entry.name.startswith("._"):  # what a Mac leaves in archives
                continue
            yield from _file(entry, prefix, linked, tree if visits[here] == 1 else Tree())
        for entry in entries:
            if _is_open_folder(entry):
                through = linked or entry.is_symlink()
                (links if through else waiting).append((f"{prefix}{entry.name}/", entry.path, (*above, here), through))


def _is_open_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is to be looked into."""
    try:
        return not _is_hidden(entry.name) and entry.name != "__MACOSX" and entry.is_dir()
    except OSError:  # a link that leads to itself; `_file` has counted it
        return False


def _is_hidden(name: str) -> bool:
    """Whether a folder is none of a user's."""
    return name.startswith(".") or name.casefold() in OF_SYSTEMS or name.casefold().endswith(PREVIEWS)


def _file(entry: os.DirEntry[str], prefix: str, linked: bool, tree: Tree) -> Iterator[File]:
    path = prefix + entry.name
    try:
        if entry.is_dir():
            if _is_hidden(entry.name):
                tree.hidden.append(f"{path}/")
        elif not entry.is_file():
            tree.nowhere.append(path)
        elif entry.name.startswith("."):
            tree.hidden.append(path)
        else:
            info = entry.stat()
            same = (info.st_dev, info.st_ino) if info.st_ino else None
            yield File(path, info.st_size, info.st_mtime_ns, same, linked or entry.is_symlink())
    except OSError:
        tree.nowhere.append(path)


def once(files: Iterable[File]) -> list[File]:
    """One name of each file, sorted by path: the first that no link leads to."""
    kept: dict[object, File] = {}
    for file in sorted(files, key=lambda file: (file.linked, file.path)):
        kept.setdefault((file.same, file.size, file.time) if file.same else file.path, file)
    return sorted(kept.values())
