"""What a run that is resumed with other keys continues with: its place in the data, and what is said of the change."""

from collections.abc import Mapping
from typing import Any

import torch

from ldmctl.config.schemas.shared import Loop
from ldmctl.console import Console
from ldmctl.storage import changes
from ldmctl.storage.measured import measured_otherwise
from ldmctl.storage.run import Run
from ldmctl.training.engine import Engine
from ldmctl.training.learner import learning_rate


def seen_before(scalars: Mapping[str, Any], run: Run, loop: Loop, engine: Engine) -> int:
    """How many items the steps so far have taken, on all ranks; a state that does not say so is of one batch size throughout."""
    batch = next((each["from"] for each in from_here_on(run, int(scalars["step"])) if each["key"] == "loop.batch"), loop.batch)
    seen = int(scalars.get("seen", int(scalars["step"]) * batch))
    return int(engine.total(torch.tensor(seen if engine.leads else 0, device=engine.device)))


def from_here_on(run: Run, done: int) -> list[dict[str, Any]]:
    """The changes that a state of so many steps knows nothing of: those of this command, and of one that was killed before it saved."""
    return [each for each in run.record.get("changes", []) if each["step"] == done]


def say_changes(run: Run, loop: Loop, done: int, kept: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """Say what changes from here on -> what changes of the scalars that are `kept` with a state."""
    for change in run.changes:
        console.say(changes.said(change))
    fresh = from_here_on(run, done)
    keys = {change["key"] for change in fresh}
    if loop.decay == "cosine" and keys & {"loop.steps", "loop.decay"} and done < loop.steps:
        rate = learning_rate(loop, done)
        console.say(f"The cosine ends at step {loop.steps:,} now, so the learning rate continues with {rate:.3g}.")
    otherwise = any(map(measured_otherwise, fresh))
    if not otherwise and not any(key.startswith("losses.") for key in keys):
        return {}
    watch = {"watch": {name: value for name, value in kept.get("watch", {}).items() if name == "events"}}  # the curves begin anew
    if kept.get("best") is None or not otherwise:
        return watch
    console.say("Validation losses are measured otherwise from here on, so snapshots/best is chosen among the coming ones.")
    return watch | {"best": None}
