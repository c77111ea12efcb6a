"""What a command says to the person at the terminal: on stderr, a live bar there and plain lines elsewhere.

Nobody has to listen: where the terminal is closed, or the program that stderr leads to has ended, the work goes on.
"""

import errno
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

from rich import console as rich_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # characters that steer a terminal, and halves that none can show
SPARKS = "▁▂▃▄▅▆▇█"
SPARKED = 24  # characters of a sparkline at most
GONE = {errno.EIO, errno.EPIPE, errno.ENXIO, errno.ECONNRESET}  # of a terminal that was closed, and of a pipe that nobody reads


class Words:
    """sys.stderr as it is at each moment, for rich; once nobody is there to read, what is written goes nowhere."""

    encoding = "utf-8"

    @property
    def rich_proxied_file(self) -> "Words":
        """Itself: within a live bar sys.stderr would lead back to rich."""
        return self

    def _try(self, method: str, *given: Any) -> Any:
        stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        if stream is None:  # a program without a terminal on Windows
            return None
        try:
            return getattr(stream, method)(*given)
        except OSError as error:
            if error.errno not in GONE:
                raise
            silence(stream)
            return None

    def write(self, text: str) -> int:
        """Write, if somebody reads -> the number of characters."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        self._try("flush")

    def isatty(self) -> bool:
        """Whether stderr is a terminal."""
        return bool(self._try("isatty"))

    def fileno(self) -> int:
        """The file descriptor of stderr."""
        return int(self._try("fileno"))


def silence(stream: IO[str]) -> None:
    """From now on, whatever is written to a stream of this process goes nowhere."""
    with suppress(OSError, ValueError, AttributeError):  # a stream in memory has no descriptor
        place, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, place)
        os.close(nowhere)


def terminal() -> rich_console.Console:
    """Where words to the person go."""
    return rich_console.Console(file=cast("IO[str]", Words()), stderr=True, highlight=False, soft_wrap=True)


class Console:
    """Says things unless `quiet`; other ranks than the first say nothing but warnings of their own."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False):
        leads = os.environ.get("RANK", "0") == "0"
        self.quiet = quiet or not leads
        self.verbose = verbose and leads
        self.terminal = terminal()
        self.draw: Callable[[Path], None] | None = None  # pictures that a command makes on its way, where that was asked for

    def say(self, text: str) -> None:
        """A line for everyone."""
        if not self.quiet:
            self.terminal.print(Text(escaped(text, lines=True)))

    def detail(self, text: str) -> None:
        """A line for those who asked with -v."""
        if self.verbose:
            self.terminal.print(Text(escaped(text, lines=True), "dim"))

    def warn(self, text: str) -> None:
        """A line that even -q shows."""
        self.terminal.print(Text.assemble(("warning:", "yellow"), " ", escaped(text, lines=True)))

    def bar(self, what: str, total: int, *, done: int = 0, unit: str = "images") -> "Bar":
        """Progress of `total` things, as a context."""
        return Bar(self, what, total, done=done, unit=unit)


class Bar:
    """Progress: a rich bar on a terminal, else a plain line at most every ten seconds and at each `report`."""

    def __init__(self, console: Console, what: str, total: int, *, done: int, unit: str):
        self.console, self.what, self.total, self.done, self.unit = console, what, total, done, unit
        self.live: Progress | None = None
        self.task: TaskID | None = None
        self.began = self.said = time.monotonic()
        self.first = done
        self.curve: list[float] = []  # the first fact of each report

    def __enter__(self) -> "Bar":
        if not self.console.quiet and self.console.terminal.is_terminal and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
            )
            self.live = Progress(*columns, TextColumn("{task.fields[facts]}"), console=self.console.terminal, transient=False)
            self.task = self.live.add_task(self.what, total=self.total, completed=self.done, facts="")
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def advance(self, done: int, *, amount: int | None = None, facts: Mapping[str, float] | None = None) -> None:
        """`done` of the total are done; `amount` counts units for the rate when they are not the same, `facts` are numbers to show."""
        self.done = done
        rate = 0.0 if amount is None else amount / max(time.monotonic() - self.began, 1e-9)
        if self.live is not None and self.task is not None:
            self.live.update(self.task, completed=done)
            if amount is not None:
                self.live.update(self.task, facts=self._words(facts or {}, rate))
        elif amount is not None and time.monotonic() - self.said > 10:
            self.report(facts or {}, rate=rate)

    def report(self, facts: Mapping[str, float], *, rate: float) -> None:
        """The numbers of this moment, with `rate` in units a second; on a terminal with the curve of the first, so far."""
        self.said = time.monotonic()
        text = self._words(facts, rate)
        if self.live is not None and self.task is not None:
            self.curve += list(facts.values())[:1]
            self.live.update(self.task, completed=self.done, facts=f"{sparkline(self.curve)} {text}".lstrip())
        else:
            spent = time.monotonic() - self.began
            left = spent / max(self.done - self.first, 1) * (self.total - self.done)
            self.console.say(f"{self.what} {self.done:,}/{self.total:,}  {text}  ETA {duration(left)}")

    def picture(self, file: Path) -> None:
        """Draw a picture above the bar, if the console does."""
        if self.console.draw is None:
            return
        if self.live is not None:
            self.live.stop()
        self.console.draw(file)
        if self.live is not None:
            self.live.start()

    def _words(self, facts: Mapping[str, float], rate: float) -> str:
        often = f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"
        return "  ".join([*(f"{name} {value:.4g}" for name, value in facts.items()), often])


def escaped(text: str, *, lines: bool = False) -> str:
    """A text that cannot steer a terminal, whoever wrote it: control characters stand in it as `\\x1b` does. With `lines` its line breaks and tabs are kept."""
    return CONTROLS.sub(lambda found: found[0] if lines and found[0] in "\n\t" else found[0].encode("unicode_escape").decode(), text)


def cell(text: str, style: str = "") -> Text:
    """A text of others in one line, that cannot steer the terminal."""
    return Text(escaped(text), style)


def duration(seconds: float) -> str:
    """`1:05:09` or `0:42`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: Sequence[float], width: int = SPARKED) -> str:
    """Finite values as a row of at most `width` blocks, each the mean of as many neighbours; the lowest is ▁, the highest █, and of equal ones all are ▁."""
    known = [value for value in values if math.isfinite(value)]
    count = min(width, len(known))
    cuts = [index * len(known) // count for index in range(count + 1)] if count else []
    means = [sum(known[first:end]) / (end - first) for first, end in pairwise(cuts)]
    low = min(means, default=0.0)
    reach = max(means, default=0.0) - low
    return "".join(SPARKS[min(int((value - low) / reach * len(SPARKS)), len(SPARKS) - 1)] if reach > 0 else SPARKS[0] for value in means)
