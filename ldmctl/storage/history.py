"""The history in run.json: one entry for each command that worked on the run, the newest last."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ldmctl.errors import LdmctlError
from ldmctl.storage.atomic import write_text
from ldmctl.storage.record import _record

STATUS = {0: "finished", 5: "diverged", 75: "stopped", 130: "killed"}  # by exit code; any other is `failed`
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


def shorter(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The record, with less and less of its history, for a disk that is full."""
    slim = [{key: value for key, value in entry.items() if key not in ("versions", "plugins")} for entry in record.get("history", [])]
    return [record, *({**record, "history": part} for part in (slim, slim[-5:], slim[-1:], []))]


def settle(folder: Path, exit_code: int, *, since: str) -> None:
    """Write down how a command of several processes ended as a whole, where its first process said otherwise or was not asked.

    Only of one that began `since` then; what cannot be read or written is left as it is.
    """
    try:
        record = _record(folder) if (folder / "run.json").is_file() else {}
        last = (record.get("history") or [{}])[-1]
        if "started" not in last or str(last["started"]) < since or record.get("exit_code") == exit_code:
            return
        ended = {"status": STATUS.get(exit_code, "failed"), "exit_code": exit_code, "ended": max(now(), str(last["started"]))}
        record |= ended
        follow(record, ended)
        write_text(folder / "run.json", json.dumps(record, indent=2) + "\n")
    except (LdmctlError, OSError, TypeError, AttributeError):
        return


def _own(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in OF_RECORD}


def _steps(first: int, record: Mapping[str, Any]) -> dict[str, Any]:
    return {"from_step": first, "to_step": record.get("step", 0)}
