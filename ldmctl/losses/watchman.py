"""What is done when a validation loss rises: the discriminator is turned down, then off, and the run continues from its best weights."""

from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.console import Console
from ldmctl.losses.parts import Parts
from ldmctl.storage import weights
from ldmctl.training.loop import Training
from ldmctl.training.watch import Rise, watched_every

DOWN = 0.1  # what the adversarial weight is multiplied by first
PATIENCE = 3  # validations that this has to help


class Watchman:
    """Looks at the losses that the user asked for after each validation. What it decides is decided by the first rank's numbers and
    kept in the adversary's buffers, so that all ranks, and a run that is resumed, do the same."""

    def __init__(self, parts: Parts, config: FitAE, training: Training, console: Console):
        self.parts, self.config, self.training, self.console = parts, config, training, console
        if training.first and parts.adversary is not None and not parts.adversary.volume:
            console.say(
                f"The discriminator has been off since step {(parts.adversary.turned_down_at or 0) + 1:,}, as run.json tells under `watch`: keys of "
                "it and its share change nothing in this run. --init starts another run from this one's weights."
            )

    def look(self, step: int) -> None:
        """After the validation of a step, on every rank. One that is due only because the run ends there, as it may not for good, decides nothing."""
        bound, training = self.config.loop.watch.bound, self.training
        if bound is None or not training.regular(step):
            return
        rise = training.curves.risen(bound) if training.engine.leads else None
        if not training.engine.any(rise is not None):
            return
        adversary = self.parts.adversary
        if adversary is None or not adversary.weight(step) or not training.engine.any(rise is not None and self._by_adversary(rise, bound)):
            training.say_risen(step, rise)
        elif adversary.turned_down_at is None:
            adversary.turn(DOWN, step)
            self._note(step, "turned down", rise, f"The discriminator is turned down to {DOWN:g} of its weight.")
        elif step - adversary.turned_down_at < PATIENCE * watched_every(self.config.loop):
            return
        elif not training.engine.any(rise is not None and training.curves.falls(rise, PATIENCE)):
            adversary.turn(0.0, step)
            back = self._go_back(rise, bound)
            self._note(step, "ended", rise, f"Turning the discriminator down did not help, so it is turned off{back}.")

    def _by_adversary(self, rise: Rise, bound: float) -> bool:
        """Whether a loss has risen since the discriminator is heard, and not only before."""
        adversary = self.parts.adversary
        assert adversary is not None
        since = self.training.curves.around(rise.name, adversary.heard_after)
        return since is None or rise.at > adversary.heard_after or rise.now > (1 + bound) * since

    def _go_back(self, rise: Rise | None, bound: float) -> str:
        """Take the best weights again, where they were kept -> what to say of it; `rise` on the first rank."""
        best, kept = self.training.snapshots.folder / "best.safetensors", self.training.scalars.get("best") is not None
        self.training.engine.barrier()
        if not self.training.engine.any(self.training.engine.leads and kept and best.exists()):
            return ""
        tensors, header = weights.load(best)
        self.parts.model.go_back(tensors)
        self.training.snapshots.forget_averages(header["step"])
        said = f", and training continues from the weights of step {header['step']:,}, the best so far"
        there = self.training.curves.around(rise.name, header["step"]) if rise is not None else None
        if rise is not None and there is not None and there > (1 + bound) * rise.best:  # others have fallen more
            self.training.curves.cut(0)
            return f"{said} by all losses together, although {rise.name.removeprefix('val/')} has risen there too"
        self.training.curves.cut(header["step"])
        return said

    def _note(self, step: int, what: str, rise: Rise | None, done: str) -> None:
        self.training.save_soon = True  # a resume starts behind the decision, whatever is validated later
        if rise is not None:
            self.training.note_event(step, what, f"{rise}. {done}")
