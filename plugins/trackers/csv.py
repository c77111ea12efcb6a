"""The numbers of a run as a table that any spreadsheet opens: metrics.csv in the run folder."""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ldmctl.config import PluginConfig

Row = dict[str, str]


class CSV:
    """Writes metrics.csv: a row for each step and a column for each name, in order of appearance; a number that a step lacks is an empty cell."""

    class Config(PluginConfig):
        """It has no keys."""

    def __init__(self, config: Config, *, run: Path):
        self._file, self._reports = Path(run) / "metrics.csv", Path(run) / "metrics.jsonl"
        self._columns: list[str] = []  # none before the first row of this process
        self._last = -1  # step of its last row

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes a row, or adds to the row of the same step."""
        row = {"step": str(step), **{name: str(value) for name, value in scalars.items()}}
        if self._last < step and set(row) <= set(self._columns):
            with self._file.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            rows = self._rows(step)
            rows[step] = rows.get(step, {}) | row
            self._rewrite(list(rows.values()))
        self._last = step

    def image(self, step: int, path: Path) -> None:
        """Does nothing: the picture is a file of the run folder already."""

    def close(self) -> None:
        """Does nothing: no file stays open between two rows."""

    def _rows(self, step: int) -> dict[int, Row]:
        """Rows of the table by step. When this process has just started, only those before `step` that metrics.jsonl has too."""
        if not self._file.exists():
            return {}
        with self._file.open(encoding="utf-8", errors="replace", newline="") as file:
            whole = [row for row in csv.DictReader(file) if None not in row.values()]  # a killed process may leave half a row
        rows = {int(row["step"]): row for row in whole if (row.get("step") or "").isdecimal()}
        if self._columns:
            return rows
        # The host has cut metrics.jsonl back to the step from which the run continues.
        reports = self._reports.read_text(encoding="utf-8", errors="replace").splitlines() if self._reports.exists() else []
        known = {_step_of(line) for line in reports} if reports else set(rows)
        return {number: row for number, row in rows.items() if number < step and number in known}

    def _rewrite(self, rows: list[Row]) -> None:
        """The whole table again, which a new column needs; all or nothing."""
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        unfinished = self._file.with_name(".metrics.csv.tmp")
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self._file)


def _step_of(line: str) -> int:
    """The step of a line of metrics.jsonl, -1 of one that is not as the host writes it."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return -1
