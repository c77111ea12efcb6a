"""The weights that a run publishes: model.safetensors, and the snapshots and averages that `loop.keep` asks for beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmctl.config.schemas.shared import Loop
from ldmctl.errors import MismatchError
from ldmctl.storage import weights
from ldmctl.storage.run import Run
from ldmctl.training.ema import LENGTHS, file_of
from ldmctl.training.fsdp import gathered
from ldmctl.training.learner import Learner


class Snapshots:
    """Files of one model, under its `header`. Where it is sharded every rank calls each method, and the first one writes."""

    def __init__(self, run: Run, loop: Loop, model: Learner, header: Mapping[str, Any]):
        self.run, self.loop, self.model, self.header = run, loop, model, header
        self.folder = run.folder / "snapshots"

    def write(self, done: int) -> None:
        """What belongs to the state after `done` steps: the model, and the snapshot and the averages that are due."""
        self._write(self.run.folder / "model.safetensors", done)
        if self._averages_due(done) and self.model.powers is not None:
            self.model.powers.write(self.run.folder / "averages", done, self.header, writes=self.run.writes)
        if self._snapshot_due(done):
            self._write(self._snapshot(done), done)
            last, numbered = self.loop.keep.last, sorted(self.folder.glob("[0-9]*.safetensors"))
            for old in numbered[:-last] if last and self.run.writes else []:
                old.unlink()

    def write_best(self, done: int) -> None:
        """snapshots/best, the model after so many steps."""
        self._write(self.folder / "best.safetensors", done)

    def has_best_of(self, step: int | None) -> bool:
        """Whether snapshots/best holds the weights of this step, of any for None."""
        found = _step_of(self.folder / "best.safetensors")
        return found is not None and step in (found, None)

    def forget_averages(self, step: int) -> None:
        """Delete the stored power averages of later steps than this one, whose weights training went back to."""
        if self.model.powers is not None and self.run.writes:
            for old in (self.run.folder / "averages").glob("[0-9]" * 9 + "-*.safetensors"):
                if int(old.name.partition("-")[0]) > step:
                    old.unlink()

    def complete(self, done: int, published: int | None) -> bool:
        """Whether all that belongs to the state after `done` steps is there; an interrupted save may have left it out. The model may be
        that of the step `published` instead, which was chosen after them."""
        averages = [file_of(self.run.folder / "averages", done, length) for length in LENGTHS] if self._averages_due(done) else []
        due = averages + ([self._snapshot(done)] if self._snapshot_due(done) else [])
        return _step_of(self.run.folder / "model.safetensors") in (done, published or done) and all(file.exists() for file in due)

    def _averages_due(self, done: int) -> bool:
        """Whether `loop.keep.averages` asks for the pair of power averages of this step; of the last it does in any case, 0 for none."""
        return (
            self.model.powers is not None
            and self.loop.keep.averages > 0
            and (done % self.loop.keep.averages == 0 or done == self.loop.steps)
        )

    def _snapshot_due(self, done: int) -> bool:
        return bool(self.loop.keep.every) and done % self.loop.keep.every == 0

    def _snapshot(self, done: int) -> Path:
        return self.folder / f"{done:09d}.safetensors"

    def _write(self, path: Path, done: int) -> None:
        tensors = gathered(self.model.average or self.model.module.state_dict(), keep=self.run.writes)
        if self.run.writes:
            path.parent.mkdir(exist_ok=True)
            weights.save(path, tensors, {**self.header, "step": done})


def _step_of(model: Path) -> int | None:
    """The step of a saved model; None when it is missing or damaged."""
    try:
        return weights.read_header(model).get("step")
    except MismatchError:
        return None
