"""What surrounds the steps of a training stage: restore, reports, states, snapshots, signals, the not-finite guard.

with Training(...) as training:
    for step in training:
        ...                                   # the stage's own forward and backward
        training.update(step, learner, items)

This file is longer than a page because restoring, reporting, validating and saving share the state of one run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ldmctl.config.schemas.shared import Loop
from ldmctl.console import Bar, Console
from ldmctl.errors import DivergedError, MismatchError, Stopped
from ldmctl.signals import Signals
from ldmctl.storage import headers
from ldmctl.storage.run import Run
from ldmctl.training import state
from ldmctl.training.engine import Engine
from ldmctl.training.flops import peak_rate
from ldmctl.training.fsdp import local
from ldmctl.training.guard import Guard
from ldmctl.training.learner import Learner, learning_rate
from ldmctl.training.memory import GIB, held
from ldmctl.training.meter import Meter
from ldmctl.training.resuming import say_changes, seen_before
from ldmctl.training.slowdown import Slowdown
from ldmctl.training.snapshots import Snapshots
from ldmctl.training.watch import Curves, Rise, watched_every


class Training:
    """The life of one training run. `learners` by name; the first is the model that is published, under `header`.

    `remembers` are modules without optimizers whose buffers belong to the state; `items` is how many make an epoch. With the
    `flops` of a training step of one item, reports say what share of the device's peak they make.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        loop: Loop,
        learners: Mapping[str, Learner],
        *,
        header: dict[str, Any],
        console: Console,
        tracker: Any = None,
        remembers: Mapping[str, nn.Module] | None = None,
        items: int | None = None,
        flops: int = 0,
    ):
        self.run, self.engine, self.loop, self.learners = run, engine, loop, dict(learners)
        self.header, self.console, self.tracker = header, console, tracker
        self.model = next(iter(self.learners.values()))
        self.first = self.done = 0
        self.seen = 0  # items that the steps before the first took
        self.scalars: dict[str, Any] = {"best": None}
        self.guard = Guard(loop.patience)
        self.snapshots = Snapshots(run, loop, self.model, header)
        self.remembers = dict(remembers or {})
        self.meter = Meter(engine, epoch=math.ceil(items / loop.batch) if items else None)
        self.flops = flops
        self.peak = engine.world * peak_rate(engine) if flops else 1.0
        self.last_validation: dict[str, float] = {}
        self.slowdown = Slowdown(engine)
        self.signals = Signals(console.say)
        self.save_soon = False  # after this step, whatever loop.save says
        self._restore()
        self.bar: Bar = console.bar(f"{run.record.get('verb', 'step')} step", loop.steps, done=self.first)

    def _restore(self) -> None:
        self.engine.barrier()  # the first rank may have cleared the folder
        resumed = self.engine.any(self.engine.leads and self.run.resumed)  # the others cannot know: they see a state or none
        saved = state.load(self.run.folder, self.engine) if resumed else None
        model = self.run.folder / "model.safetensors"
        if saved is None:
            if resumed and model.exists():
                raise MismatchError(
                    f"{self.run.folder} holds a trained model, but its state.safetensors is gone, so it cannot be resumed. "
                    "To start over: another folder (--out), or --overwrite, which deletes the model."
                )
            self.run.cut_metrics(0)
            return
        tensors, scalars = saved
        headers.check(headers.Scalars, scalars, self.run.folder / state.FILE)
        for name, learner in self.learners.items():
            if learner is self.model or any(each.startswith(f"{name}.") for each in tensors):  # else it begins with this command
                learner.restore(name, tensors)
        if self.model.powers is not None and not self.loop.keep.averages:
            self.console.say("The power averages of this run are kept up in its state; loop.keep.averages=0 stores none of them.")
        whole = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
        for name, module in self.remembers.items():
            module.load_state_dict({key: whole.get(f"{name}.{key}", value) for key, value in module.state_dict().items()})
        self.meter.restore(whole)
        self.first = self.done = int(scalars["step"])
        self.seen = seen_before(scalars, self.run, self.loop, self.engine)
        self.scalars = scalars["kept"]
        if self.scalars.get("best") is not None and not self.snapshots.has_best_of(self.scalars.get("best_step")):
            self.scalars["best"] = None  # its file is gone, or of steps after the state, which are made again
        self.last_validation = self.scalars.get("validation", {})
        self.guard.in_a_row = int(scalars["bad_in_a_row"])
        self.run.cut_metrics(self.done)
        published = self.run.record.get("published", {}).get("step")
        if self.run.record.get("step") != self.done:  # killed between the state and the record
            self.run.record["step"], published = self.done, None
            self._forget_judgement()
            self.run.update()
        self.complete(published)
        if self.done:
            self.scalars |= say_changes(self.run, self.loop, self.done, self.scalars, self.console)
            self.console.say(f"Resumed {self.run.folder} at step {self.done:,} of {self.loop.steps:,}.")

    def __enter__(self) -> "Training":
        self.signals.__enter__()
        self.bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.__exit__()
        self.signals.__exit__()
        if self.tracker is not None:
            self.tracker.close()

    def __iter__(self) -> Iterator[int]:
        self.meter.start()
        for step in range(self.first, self.loop.steps):
            yield step
            self.done = step + 1
            self.meter.step(self.done)
            self.bar.advance(self.done)
            last = self.done == self.loop.steps
            if last or self.done % self.loop.report == 0:
                self.report()
            stop = self._asked_to_stop()
            if last or stop or self.save_soon or self.done % self.loop.save == 0 or self._keeps():
                with self.aside():
                    self.save()
                self.save_soon = False
            if last and self.guard.in_a_row >= min(self.loop.patience, self.loop.steps // 2 + 1):
                raise DivergedError(
                    f"The last {self.guard.in_a_row} steps were not finite, so the model has not learned from them. Try a lower loop.lr."
                )
            if stop and not last:
                self.engine.barrier()  # a rank that ends early has the others ended by torchrun
                raise Stopped(
                    f"Stopped after step {self.done:,} of {self.loop.steps:,}; everything is saved. Run the same command to continue."
                )

    def _asked_to_stop(self) -> bool:
        if self.engine.world == 1:
            return self.signals.asked
        return self.done % 8 == 0 and self.engine.any(self.signals.asked)  # asking the ranks costs a wait

    def _keeps(self) -> bool:
        return any(every and self.done % every == 0 for every in (self.loop.keep.every, self.loop.keep.averages))

    def previews(self, step: int) -> bool:
        """Whether pictures and the validation losses are due after this step."""
        due = (step + 1) % self.loop.preview == 0 or step + 1 == self.loop.steps
        if due:
            self.run.refuse_if_gone()
        return due

    def validates(self, step: int) -> bool:
        """Whether the validation losses are due after this step: with the pictures, and where `loop.watch` asks for them."""
        return self.previews(step) or (self.loop.watch.bound is not None and self.regular(step))

    def regular(self, step: int) -> bool:
        """Whether they are due after this step wherever the run ends."""
        return any((step + 1) % every == 0 for every in (self.loop.preview, watched_every(self.loop)))

    @property
    def curves(self) -> Curves:
        """The validation losses that are watched; on the first rank."""
        return Curves(self.scalars.setdefault("watch", {}))

    def say_risen(self, step: int, rise: Rise | None = None) -> None:
        """Say once that a validation loss has risen, where one has and nothing can be done about it; on the first rank."""
        rise = rise or (self.curves.risen(self.loop.watch.bound) if self.loop.watch.bound is not None and self.engine.leads else None)
        told = [event["step"] for event in self.scalars.get("watch", {}).get("events", []) if event["what"] == "risen"]
        if rise is not None and not any(step >= self.curves.steps[0] for step in told):  # of these curves: others may have risen before
            kept = "; snapshots/best is kept" if self.loop.keep.best else ""
            self.note_event(step, "risen", f"{rise}. If it stays so, a lower loop.lr is likely to help{kept}.")

    def note_event(self, step: int, what: str, sentence: str) -> None:
        """Say what was done about a loss after this step, and keep it in run.json; once, however often the run is resumed before it."""
        events = self.scalars.setdefault("watch", {}).setdefault("events", [])
        events.append({"step": step + 1, "what": what, "why": sentence})
        self.console.warn(f"After step {step + 1:,}: {sentence}")
        self.run.update(watch=list(events))

    def add(self, values: Mapping[str, Tensor], share: float = 1.0) -> None:
        """Losses and facts of one micro-batch, averaged into the next report; `share` of this rank's batch."""
        self.meter.add(values, share)

    def update(self, step: int, learner: Learner, items: Tensor) -> None:
        """One optimizer step, the autoencoder's own `after_step`, and the average."""
        norm, bad = learner.update(step)
        renewed = learner.after_step()
        if learner.average:
            learner.track(step, renewed)
        name = next(name for name, each in self.learners.items() if each is learner)
        self.meter.add({f"{name}/gradient": norm, f"{name}/skipped_sum": bad / self.engine.world})  # all ranks skip together
        self.guard.add(step, bad, items)

    def aside(self) -> AbstractContextManager:
        """Around what is no training, such as a preview: its time is not in the reported rate."""
        return self.meter.aside()

    def report(self) -> None:
        """One line in metrics.jsonl and on the screen, averaged since the last one."""
        facts, seconds, steps = self.meter.read()
        rate = steps * self.loop.batch / max(seconds, 1e-9)
        values = {
            **facts,
            "lr": learning_rate(self.loop, self.done - 1),
            "images_per_second": round(rate, 1),
            **({"peak_share": round(self.flops * rate / self.peak, 4)} if self.flops else {}),
            **({"memory_gib": round(bytes_held / GIB, 3)} if (bytes_held := held(self.engine)) else {}),
        }
        self.run.log(self.done, values)
        if self.tracker is not None and self.run.writes:
            self.tracker.log(self.done, values)
        if (slow := self.slowdown.note(rate)) is not None and self.run.writes:
            self.console.warn(slow)
        shown = {name: value for name, value in facts.items() if "/" not in name}
        self.bar.report(
            dict(list(shown.items())[:6]) | {name: values[name] for name in ("peak_share", "memory_gib") if name in values}, rate=rate
        )

    def validated(
        self, step: int, values: Mapping[str, float], *, judged_by: str, watched: Sequence[str] = (), picture: Path | None = None
    ) -> None:
        """Report validation numbers, and keep the model as snapshots/best when `judged_by` is the lowest so far.

        The `watched` ones are those whose rise counts. The first rank calls it, and where the model is sharded all do.
        """
        values = self.last_validation = self.scalars["validation"] = {name: float(value) for name, value in values.items()}
        self.run.log(step + 1, values)
        if self.tracker is not None and self.run.writes:
            self.tracker.log(step + 1, values)
            if picture is not None:
                self.tracker.image(step + 1, picture)
        if self.loop.watch.bound is not None and self.regular(step):
            self.curves.add(step + 1, {name: values[name] for name in watched if name in values})
        if picture is not None and self.engine.leads:
            self.bar.picture(picture)
        best = self.scalars.get("best")
        judged = values.get(judged_by, math.nan)
        better = self.engine.leads and math.isfinite(judged) and (best is None or judged < best)
        if self.loop.keep.best and self._first_rank_says(better):
            self.scalars |= {"best": judged, "best_step": step + 1}
            with self.aside():
                self.snapshots.write_best(step + 1)
        if values:
            told = (f"{name.removeprefix('val/')} {value:.4g}" for name, value in values.items())
            self.console.say("  ".join([f"validation at step {step + 1:,}:", *told]))

    def save(self) -> None:
        """The state, the model made of it, and the snapshots that `loop.keep` asks for."""
        self.run.refuse_if_gone()
        self.guard.check()
        if self.guard.in_a_row:
            self.console.warn(f"The last {self.guard.in_a_row} steps up to {self.done:,} were not finite and were skipped.")
        if self.engine.world > 1:
            unwritten, self.run.unwritten = self.engine.joined(self.run.unwritten), []
            self.run.note_bad(unwritten if self.run.writes else [])
        tensors = {name: value for prefix, learner in self.learners.items() for name, value in learner.state(prefix).items()}
        scales = {f"{prefix}.scale" for prefix in self.learners}  # of losses in float16: these may be anything
        finite = (
            bool(local(value).isfinite().all()) for name, value in tensors.items() if value.is_floating_point() and name not in scales
        )
        if self.engine.any(not all(finite)):
            raise DivergedError(
                f"Weights are not finite at step {self.done:,}; the last good state in {self.run.folder} is kept. Try a lower loop.lr."
            )
        remembered = {f"{name}.{key}": value for name, module in self.remembers.items() for key, value in module.state_dict().items()}
        seen = self.seen + (self.done - self.first) * self.loop.batch
        scalars = {"step": self.done, "steps": self.loop.steps, "seen": seen, "kept": self.scalars, "bad_in_a_row": self.guard.in_a_row}
        state.save(self.run.folder, tensors | remembered | self.meter.state(), scalars, self.engine)
        self.snapshots.write(self.done)
        if self.run.record.get("step") != self.done:
            self._forget_judgement()
        self.run.update(step=self.done)

    def complete(self, published: int | None = None) -> None:
        """Write what belongs to the state and is not there; the model may be that of the step `published`, which was chosen after it."""
        if self._first_rank_says(self.engine.leads and not self.snapshots.complete(self.done, published)):
            self.snapshots.write(self.done)

    def _forget_judgement(self) -> None:
        """What was published and judged is a model that is no more."""
        for key in ("published", "judged"):
            self.run.record.pop(key, None)

    def _first_rank_says(self, flag: bool) -> bool:
        """Whether the first rank found so, on every rank that takes part: all of a sharded model's, else each for itself."""
        return self.engine.any(flag) if self.model.sharded else flag
