"""Run folders as they lie on disk, read and never written: whatever is damaged or of others becomes a sentence. Without torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ldmctl.config.documents import read_config
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.storage.measured import measured_since
from ldmctl.storage.record import _record

VAL = "val/loss"  # what the training verbs judge by
MOST = 2**53  # of a step or a count; a larger one is damage
DEEP = 4  # folders below the one that is asked for
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

    def last(self) -> dict[str, float]:
        """Each number as it was reported last; null and nan are none."""
        out: dict[str, float] = {}
        for row in self.rows:
            out |= {name: number for name, value in row.items() if name != "step" and (number := finite(value)) is not None}
        return out

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
        raise MismatchError(f"There is no run folder {place}. `ldmctl runs list` shows those below runs/.")
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
    record, config = parts
    return Look(place, record, config, rows, troubles)


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


def find(folder: str | Path) -> tuple[list[Path], list[str]]:
    """(the run folders below one, or it alone where it is one; sentences on the folders in it that hold none)."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise MismatchError(f"There is no folder {place}. Runs lie in runs/ unless --out said otherwise; name the folder that holds yours.")
    if (place / "run.json").exists():
        return [place], []
    found: list[Path] = []
    foreign: list[str] = []
    for child in entries(place, foreign):
        below = list(runs_in(child, DEEP, foreign))
        found += below
        if not below:
            foreign.append(f"{child} holds no run.")
    return found, foreign


def runs_in(folder: Path, depth: int, troubles: list[str]) -> Iterator[Path]:
    """A folder that is a run, else the runs below it; nothing is looked for inside of a run."""
    if os.path.lexists(folder / "run.json"):
        yield folder
    elif depth > 1:
        for child in entries(folder, troubles):
            yield from runs_in(child, depth - 1, troubles)


def entries(folder: Path, troubles: list[str]) -> list[Path]:
    """The folders in a folder by name, without hidden ones, and links only to runs; one that may not be read is told to `troubles`."""
    try:
        return sorted(
            Path(each.path)
            for each in os.scandir(folder)
            if not each.name.startswith(".")
            and (each.is_dir(follow_symlinks=False) or (each.is_dir() and os.path.lexists(os.path.join(each.path, "run.json"))))
        )
    except OSError as error:
        troubles.append(f"{folder} cannot be looked into ({error.strerror}).")
        return []
