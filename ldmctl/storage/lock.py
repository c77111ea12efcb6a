"""A run folder's lock: one writer at a time, released by the kernel however the process ends."""

import errno
import os
import weakref
from pathlib import Path
from typing import IO

from ldmctl.console import Console
from ldmctl.errors import MismatchError

HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}  # another process has it; the last one is Windows'
UNABLE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}  # network and user-space file systems without locks


def _take(folder: Path) -> IO[str]:
    """The folder's lock, which the kernel releases when this process ends; a file that locks nothing where the file system has no locks."""
    lock = (folder / ".lock").open("a+", encoding="utf-8")
    try:
        _lock(lock)
    except OSError as error:
        if error.errno in UNABLE:
            Console().warn(
                f"The file system of {folder} has no locks ({error.strerror}), so nothing keeps a second command out of it: see to it that there is none."
            )
        else:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            if error.errno not in HELD:
                raise
            raise MismatchError(
                f"Another ldmctl command{f' (process {holder})' if holder else ''} is writing to {folder}. Wait for it, or name another --out."
            ) from None
    _keep_from_forks(lock)
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except BaseException:
        lock.close()
        raise
    return lock


def _keep_from_forks(lock: IO[str]) -> None:
    """A forked process, such as one that decodes pictures, lets go of the lock: it may outlive by seconds the one that took it."""
    if hasattr(os, "register_at_fork"):
        reference = weakref.ref(lock)
        os.register_at_fork(after_in_child=lambda: None if (held := reference()) is None else held.close())


def _lock(lock: IO[str]) -> None:
    """OSError when it cannot be had."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
