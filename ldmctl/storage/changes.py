"""What was changed when a run was resumed, and from which step on: `changes` in its run.json."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ldmctl.config.documents import write_json
from ldmctl.errors import MismatchError
from ldmctl.storage import weights

Change = dict[str, Any]  # step, key, from, to


def step_of_state(folder: Path) -> int | None:
    """The step of a run's saved state; None without one, or where its header cannot be read."""
    file = folder / "state.safetensors"
    try:
        return int(weights.read_header(file)["scalars"]["step"]) if file.exists() else None
    except (MismatchError, LookupError, TypeError, ValueError):
        return None


def added(known: Sequence[Change], step: int, differences: Iterable[tuple[str, Any, Any]]) -> list[Change]:
    """The changes of a run with these from `step` on. One that was noted for the same step never came into force and gives way."""
    out = list(known)
    for key, before, after in differences:
        earlier = next((each for each in out if each["key"] == key and each["step"] == step), None)
        out = [each for each in out if each is not earlier]
        first = before if earlier is None else earlier["from"]
        if first != after:
            out.append({"step": step, "key": key, "from": first, "to": after})
    return out


def said(change: Change) -> str:
    """`loop.lr changes from 0.001 to 0.0001 from step 4,000 on.`"""
    return f"{change['key']} changes from {_short(change['from'])} to {_short(change['to'])} from step {change['step']:,} on."


def _short(value: Any) -> str:
    text = f"{value:,}" if type(value) is int else write_json(value)
    return text if len(text) < 60 else f"{text[:57]}..."
