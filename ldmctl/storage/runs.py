"""Run folders as they lie on disk, read and never written: whatever is damaged or of others becomes a sentence. Without torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ldmctl.config.documents import read_config
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.storage.below import hint_of
from ldmctl.storage.measured import measured_since
from ldmctl.storage.record import _record

VAL = "val/loss"  # what the training verbs judge by
MOST = 2**53  # of a step or a count; a larger one is damage
NAMED = 3  # numbers of a sentence
Row = dict[str, Any]  # a line of metrics.jsonl


@dataclass(frozen=True)
class Look:
    """What a run folder says, as far as it can be read; `troubles` are sentences on the rest."""

    folder: Path
    record: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    @property
    def verb(self) -> str | None:
        """The verb that made it."""
        return word(self.record.get("verb"))

    @property
    def state(self) -> str:
        """`running`, `finished`, `stopped`, `diverged`, `killed`, `failed`, or `damaged` where run.json says nothing."""
        status = word(self.record.get("status"))
        return "damaged" if status is None else "killed" if status == "running" and is_free(self.folder) else status

    @property
    def step(self) -> int | None:
        """Steps, or shards of a cache, that are done: as the record says, or the newest report does."""
        said = (whole(each) for each in (self.record.get("step"), *(row["step"] for row in self.rows[-1:])))
        return max((each for each in said if each is not None), default=None)

    @property
    def steps(self) -> int | None:
        """Steps that were asked for."""
        loop = self.config.get("loop")
        return whole(loop.get("steps")) if isinstance(loop, Mapping) else None

    @property
    def seconds(self) -> float | None:
        """How long commands worked on it, in all; the one that runs until now. None where no time is written down."""
        told = self.record.get("history")
        commands = [each for each in told if isinstance(each, Mapping)] if isinstance(told, list) else []
        commands = commands or [self.record]
        spans = [span(each, running=each is commands[-1] and self.state == "running") for each in commands]
        known = [each for each in spans if each is not None]
        return sum(known) if known else None

    def values(self, name: str) -> tuple[list[int], list[float]]:
        """(steps, values) of a number, those that are finite."""
        found = [(row["step"], number) for row in self.rows if (number := finite(row.get(name))) is not None]
        return [step for step, _ in found], [value for _, value in found]

    def reported(self) -> dict[str, tuple[int, float]]:
        """{name: (step, value)} of each number as it was reported last, without those that are not finite any more."""
        out: dict[str, tuple[int, float]] = {}
        for row in self.rows:
            out |= {name: (row["step"], number) for name, value in row.items() if name != "step" and (number := finite(value)) is not None}
        return {name: each for name, each in out.items() if name not in self.lost}

    def last(self) -> dict[str, float]:
        """The values of what was `reported`."""
        return {name: value for name, (_, value) in self.reported().items()}

    @cached_property
    def lost(self) -> dict[str, int]:
        """Which numbers are not finite, and since which step."""
        return lost(self.rows)

    def best(self, name: str = VAL) -> tuple[int, float] | None:
        """(step, value) of the least, of those that are made of the same losses as the last one."""
        since, (steps, values) = measured_since(self.record), self.values(name)
        return min((each for each in zip(steps, values, strict=True) if each[0] > since), key=lambda each: each[1], default=None)

    def summary(self) -> dict[str, Any]:
        """What `ldmctl runs list` says of it."""
        best, last = self.best(), self.last()
        return {
            "run": str(self.folder),
            "verb": self.verb,
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
            "val": last.get(VAL),
            "not_finite": self.lost,
            "best": None if best is None else {"step": best[0], "value": best[1]},
            "images_per_second": last.get("images_per_second"),
            "seconds": self.seconds,
            "bytes": size_of(self.folder),
            "parent": word(self.record.get("parent")),
            "started": word(self.record.get("started")),
            "troubles": self.troubles,
        }


def look(folder: str | Path, *, curves: bool = True) -> Look:
    """What a run folder says, without `curves` all but its reports; a MismatchError where it is none."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise MismatchError(f"There is no run folder {place}.{hint_of(place)} `ldmctl runs list` shows those below runs/.")
    if not (place / "run.json").exists():
        raise MismatchError(f"{place} is not a run folder: it has no run.json.")
    troubles: list[str] = []
    parts: list[dict[str, Any]] = []
    for read in (_record, read_config):
        try:
            parts.append(read(place))
        except LdmctlError as error:
            lacks = read is read_config and not (place / "config.yaml").exists()
            troubles.append(f"{place} has no config.yaml." if lacks else str(error).split(" Two ways on: ")[0])
            parts.append({})
    rows, unread = reports(place / "metrics.jsonl", troubles) if curves else ([], 0)
    if unread:
        troubles.append(f"{place / 'metrics.jsonl'}: {unread:,} of its lines cannot be read, and are left out.")
    troubles += [f"{place}: {sentence}" for sentence in in_words(lost(rows))]
    return Look(place, parts[0], parts[1], rows, troubles)


def reports(file: Path, troubles: list[str]) -> tuple[list[Row], int]:
    """(the objects with a step in metrics.jsonl, how many lines are none); one that cannot be opened is told to `troubles`."""
    if not file.exists():
        return [], 0
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        troubles.append(f"{file} cannot be read ({error.strerror}).")
        return [], 0
    found = [parsed(line) for line in lines if line.strip()]
    rows = [row for row in found if row is not None]
    return rows, len(found) - len(rows)


def parsed(line: str) -> Row | None:
    """One report; None where the line is none, as the half one of a killed process."""
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
        if isinstance(row, dict) and whole(row.get("step")) is not None:
            return row
    return None


def lost(rows: Sequence[Row]) -> dict[str, int]:
    """{name: step} of each number whose newest report is null, nan or infinite: since which step all are. Losses come first."""
    since: dict[str, int] = {}
    found = {"step"}
    for row in reversed(rows):
        for name, value in row.items():
            if name in found:
                continue
            if finite(value) is not None:
                found.add(name)
            elif value is None or isinstance(value, float):
                since[name] = row["step"]
    return {name: since[name] for name in sorted(since, key=lambda name: (name != VAL, name != "loss", name))}


def in_words(since: Mapping[str, int]) -> list[str]:
    """A sentence for each step since which losses are not finite; other numbers may be null for reasons of their own."""
    losses = [name for name in since if name.startswith(("loss", "val/"))]
    by_step = {step: [name for name in losses if since[name] == step] for step in sorted({since[name] for name in losses})}
    return [f"{shortened(names)} {'is' if len(names) == 1 else 'are'} not finite since step {step:,}." for step, names in by_step.items()]


def shortened(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return f"{', '.join(names[:NAMED])} and {more:,} more" if more > 0 else " and ".join(names)


def finite(value: Any) -> float | None:
    """A number that is one; None of anything else."""
    try:  # not `suppress`, since a report asks this of each of its numbers
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of four hundred digits
        return None
    return float(value) if is_number else None


def whole(value: Any) -> int | None:
    """An integer of a size that steps and counts have; None of anything else."""
    return value if type(value) is int and abs(value) < MOST else None


def word(value: Any) -> str | None:
    """A text; None of anything else."""
    return value if isinstance(value, str) else None


def span(entry: Mapping[str, Any], *, running: bool) -> float | None:
    """Seconds from when a command began until it ended, or now while it runs."""
    began, ended = (moment(entry.get(name)) for name in ("started", "ended"))
    ended = datetime.now(UTC) if ended is None and running else ended
    return max((ended - began).total_seconds(), 0.0) if began and ended else None


def moment(value: Any) -> datetime | None:
    """A time as run.json has it."""
    with suppress(TypeError, ValueError):
        found = datetime.fromisoformat(value)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def is_free(folder: Path) -> bool:
    """Whether no command writes to a folder: its lock can be had, and is let go at once. False where that cannot be known."""
    if os.name != "posix":
        return False
    import fcntl

    try:
        with (folder / ".lock").open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, links not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
