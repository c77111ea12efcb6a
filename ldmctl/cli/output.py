"""Stdout is for results: while a command computes one that a program may read, whatever else is printed goes to stderr."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from ldmctl.console import GONE, Console, escaped, silence
from ldmctl.errors import PluginWarning, RelocatedWarning

RESULT = {"--json", "--dry-run"}  # options with which stdout is a document


class Apart:
    """In place of sys.stdout: what is printed goes to stderr, `result` is where results go."""

    def __init__(self, result: IO[str]):
        self.result = result

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def result() -> Any:
    """Where a command's result is printed."""
    return getattr(sys.stdout, "result", sys.stdout)


def put(text: str, *, lines: bool = False) -> None:
    """Print a line of a result, or with `lines` several; what is in it cannot steer the terminal."""
    hand_over(escaped(text, lines=lines) + "\n")


def hand_over(text: str) -> None:
    """Write a part of a result as it is, if somebody still reads: a program may stop reading early, and a terminal be closed."""
    stream = result()
    try:
        print(text, end="", file=stream, flush=True)
    except OSError as error:
        if error.errno not in GONE:
            raise
        silence(stream)


@contextmanager
def arranged(words: Sequence[str]) -> Iterator[None]:
    """A command's streams: results apart from what plugins print, in their processes too, and warnings that are written for the person as one line each."""
    plain, said = sys.stdout, set()
    show = warnings.showwarning

    def tell(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, PluginWarning | RelocatedWarning):
            show(message, category, *place, **more)
        elif str(message) not in said and os.environ.get("RANK", "0") == "0":
            said.add(str(message))
            Console().warn(str(message))

    apart = bool(RESULT & set(words))
    kept = _aside() if apart else None
    found: Any = plain if kept is None else os.fdopen(os.dup(kept), "w", encoding="utf-8")
    warnings.showwarning = tell
    if apart:
        sys.stdout = Apart(found)  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning, sys.stdout = show, plain
        if kept is not None:
            found.close()
            os.dup2(kept, 1)
            os.close(kept)


def _aside() -> int | None:
    """Send file descriptor 1 to stderr -> a copy of what it was; None where sys.stdout is something else, as in a notebook."""
    try:
        if sys.stdout.fileno() != 1:
            return None
    except (AttributeError, OSError, ValueError):
        return None
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return kept
