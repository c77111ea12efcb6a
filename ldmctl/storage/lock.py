"""A run folder's lock: one writer at a time, released by the kernel however the process ends."""

import os
from pathlib import Path
from typing import IO

from ldmctl.errors import MismatchError


def _take(folder: Path) -> IO[str]:
    """The folder's lock, which the kernel releases when this process ends, however it ends."""
    lock = (folder / ".lock").open("a+", encoding="utf-8")
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise MismatchError(
            f"Another ldmctl command{f' (process {holder})' if holder else ''} is writing to {folder}. Wait for it, or name another --out."
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
