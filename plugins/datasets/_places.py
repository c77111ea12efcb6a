"""Where a file name in a table leads: a path below the root, however it is written.

A name begins at its table's folder, or it is absolute. It may go up, but not out of the root. One of another machine keeps its slash.
"""

import posixpath
from collections.abc import Collection
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ldmctl.errors import DataError

from ._names import shown


class Places:
    """The names in one table, whose folder is below a root."""

    def __init__(self, root: Path, folder: str, known: Collection[str] = ()):
        self.root, self.folder, self.known = root, folder, known  # the last parts of the paths of pictures, case folded
        self.roots = [f"{path.as_posix().rstrip('/')}/" for path in (root.absolute(), root.resolve())]

    def relative(self, name: str, where: str) -> str:
        """A name as it is written from the folder of the table, with slashes; one that leads out of the root is a DataError."""
        plain = name.replace("\\", "/")
        top = next((top for top in self.roots if plain.startswith(top)), "")
        if top:
            plain = self._from_folder(plain.removeprefix(top))
        elif self._is_of_another_machine(plain):
            return f"/{plain.partition(':')[2].lstrip('/')}" if ":" in plain.split("/")[0] else plain
        elif plain.startswith(("/", "~")) or ":" in plain.split("/")[0]:
            plain = ""
        elif ".." in plain.split("/"):
            plain = self._from_folder(f"{self.folder}/{plain}".lstrip("/"))
        if not plain:
            raise DataError(f"{where}: {name!r} must be a path inside {shown(str(self.root))}.")
        return str(PurePosixPath(plain)) if "//" in plain or "./" in plain or plain.endswith("/") else plain

    @cached_property
    def names(self) -> set[str]:
        """Last parts of the paths of pictures, with and without their endings."""
        return {*self.known, *(PurePosixPath(name).stem for name in self.known)}

    def _is_of_another_machine(self, plain: str) -> bool:
        """Whether an absolute path or address ends in the name of a picture."""
        absolute = plain.startswith("/") or ":" in plain.partition("/")[0]
        last = plain.rpartition("/")[2]
        return absolute and ".." not in plain.split("/") and not self.names.isdisjoint((last.casefold(), unquote(last).casefold()))

    def _from_folder(self, path: str) -> str:
        """A path below the root as it is written from the folder; '' for one that is not below."""
        path = posixpath.normpath(path)
        if path.split("/")[0] in ("..", ".", ""):
            return ""
        start = f"{self.folder}/" if self.folder else ""
        return path.removeprefix(start) if path.startswith(start) else "../" * start.count("/") + path


def below(folder: str, name: str) -> str:
    """The path below the root of a name that `relative` has written from a folder."""
    path = f"{folder}/{name}" if folder and not name.startswith("/") else name
    return posixpath.normpath(path) if name.startswith("../") else path
