"""Files that are whole or not there, on file systems as they are: what a file system cannot do is passed over, what fails is an error.

A new file has the rights that the umask leaves, whoever writes it: safetensors and tempfile give 0600.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ldmctl.storage.leftovers import sweep, unfinished

UNABLE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF}  # of fsync: the file system has none
HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EXDEV, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}  # again is no better
PAUSES = (0.05, 0.5)  # seconds before a rename is tried again: a virus scanner or a network share lets go


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what was written there is synced and takes the name, or vanishes on an error.

    Its folder must be there: a run that was deleted meanwhile does not come back as half a one. What a killed process left of the same
    file goes.
    """
    temporary = unfinished(path, "tmp")
    sweep(path.parent, path.name)
    try:
        rights = _new(temporary)
        yield temporary
        with suppress(PermissionError):  # of file systems that know no rights
            temporary.chmod(rights)
        with temporary.open("r+b") as file:
            _sync(file.fileno())
        _rename(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_over(path: Path, *texts: str) -> None:
    """Put the first text that fits into the blocks that a file has already: what can be said on a disk that is full."""
    room = getattr(path.stat(), "st_blocks", 0) * 512
    if data := next((data for text in texts if len(data := text.encode("utf-8")) <= room), b""):
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut, where the system can."""
    if os.name == "posix":
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except PermissionError:  # a folder that may be written to and not be listed
            return
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def _new(path: Path) -> int:
    """Make an empty file -> the rights that it has by the umask, or by the defaults of its folder."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNABLE:
            raise


def _rename(source: Path, target: Path) -> None:
    """Replace a file, and try again when that fails for once."""
    written = source.stat().st_ino
    for pause in (*PAUSES, None):
        try:
            os.replace(source, target)
            return
        except FileNotFoundError:
            with suppress(OSError):
                if target.stat().st_ino == written:  # done all the same: only the answer was lost on the way
                    return
            raise
        except OSError as error:
            if pause is None or error.errno in HOPELESS:
                raise
            time.sleep(pause)
