"""The history in run.json: one entry for each command that worked on the run, the newest last."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

KEPT = 100  # entries
OF_RECORD = ("command", "status", "exit_code", "ended", "versions", "plugins")  # also in the record itself, of the last command


def now() -> str:
    """The time in UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def entries(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What earlier commands did, oldest first; a record from before there was a history tells of its last command."""
    kept = record.get("history")
    if not isinstance(kept, list):
        kept = [{"started": record.get("started"), **_own(record), **_steps(0, record)}] if "command" in record else []
    told = [dict(entry) for entry in kept if isinstance(entry, Mapping)]
    # Who opens the folder now holds its lock, so that nobody else is running: that one ended without a word.
    return [entry | {"status": "killed"} if entry.get("status") == "running" else entry for entry in told]


def begin(record: Mapping[str, Any], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history with an entry for the command that the record describes now."""
    return [*before, {"started": now(), **_own(record), "ended": None, **_steps(record.get("step", 0), record)}][-KEPT:]


def follow(record: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Take over into the last entry what was changed in the record."""
    if record.get("history"):
        entry = record["history"][-1]
        entry |= {name: values[name] for name in OF_RECORD if name in values}
        entry |= {"to_step": values["step"]} if "step" in values else {}


def _own(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in OF_RECORD}


def _steps(first: int, record: Mapping[str, Any]) -> dict[str, Any]:
    return {"from_step": first, "to_step": record.get("step", 0)}
