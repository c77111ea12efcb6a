"""A run folder while it is held by this process: locked, and still the folder that was locked."""

import errno
from pathlib import Path
from typing import IO

from ldmctl.errors import MismatchError


class Hold:
    """A folder and its lock, until `release`; `opened` from when its files are there."""

    def __init__(self, folder: Path, lock: IO[str]):
        self.folder, self.opened = folder, False
        self._lock, self._place = lock, _place(folder)

    def release(self) -> None:
        """Let another command in."""
        self._lock.close()

    def gone(self) -> bool:
        """Whether somebody has deleted, moved or emptied the folder meanwhile."""
        try:
            return _place(self.folder) != self._place or (self.opened and not (self.folder / "config.yaml").exists())
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENOTDIR)

    def error(self) -> MismatchError:
        """What is said then."""
        return MismatchError(
            f"{self.folder} was deleted, moved or emptied while this command was writing to it, so the command stops. "
            "What was in the folder is not made again from here: put it back and run the same command to continue, or start over with it."
        )


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
