"""Temporary files whose process was killed before it could rename or delete them: known by the machine and the process in their names."""

import hashlib
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

DAY = 86_400.0  # seconds
HALF = re.compile(r"\.(.+)\.([^.]+)\.([0-9]+)\.(?:tmp|part)")


@cache
def machine() -> str:
    """Eight letters for this machine: processes of others, which share a folder with it, may have the same numbers."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def unfinished(path: Path, ending: str) -> Path:
    """What a file is called while this process writes it: `.NAME.MACHINE.PROCESS.ENDING`, in the same folder."""
    return path.with_name(f".{path.name}.{machine()}.{os.getpid()}.{ending}")


def sweep(folder: Path, name: str = "") -> None:
    """Delete what was being written in a folder, or under one name of it, by a process of this machine that is gone, or by any a day ago."""
    for file in _entries(folder):
        found = HALF.fullmatch(file.name)
        if found is None or name not in ("", found[1]):
            continue
        with suppress(OSError):
            gone = found[2] == machine() and not _runs(int(found[3]))
            if gone or file.stat().st_mtime < time.time() - DAY:
                file.unlink()


def _entries(folder: Path) -> Iterator[Path]:
    with suppress(OSError):  # one that is not there, or may be written to and not be listed
        yield from [folder / name for name in os.listdir(folder) if name.startswith(".")]


def _runs(process: int) -> bool:
    """Whether a process of this machine is there; taken for so where the system cannot say."""
    try:
        os.kill(process, 0) if os.name == "posix" else None
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True
