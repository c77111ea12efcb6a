"""Moments at which a child changes a file: counted, and acted upon just before."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults_child


def each_change(work: Path, act: Callable[[str, str], None]) -> Any:
    """A hook that calls act(event, path) before each change to a file below `work`, and before each fsync."""
    sync, inside = os.fsync, [False]

    def told(event: str, path: str) -> None:
        if not inside[0]:
            inside[0] = True
            try:
                act(event, path)
            finally:
                inside[0] = False

    def synced(descriptor: int) -> None:
        told("fsync", "")
        sync(descriptor)

    ours = os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if os.getpid() != ours and os.fsync is sync:
            os.fsync = synced  # in the child alone
        for path in faults_child.changed_paths(event, arguments)[:1]:
            whole = os.path.realpath(os.path.join(str(work), path))
            if whole.startswith(f"{work}/") and not whole.startswith(f"{work}/tmp"):
                told(event, whole)

    return hook


def counting(work: Path, report: Path) -> Any:
    """A hook that writes a line for each change."""
    file = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return each_change(work, lambda event, path: os.write(file, f"{event} {path}\n".encode()) and None)


def killing(work: Path, turn: int, *, torn: bool) -> Any:
    """A hook that kills its process before change number `turn`; `torn`: with half a line, where a line is appended."""
    seen = [0]

    def act(event: str, path: str) -> None:
        seen[0] += 1
        if seen[0] > turn:
            if torn and event == "open" and path.endswith((".jsonl", ".csv")):
                with open(path, "ab") as file:
                    file.write(b'{"step": 3, "lo')
            os.kill(os.getpid(), signal.SIGKILL)

    return each_change(work, act)
