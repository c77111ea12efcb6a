"""Whether steps have become many times slower than they were at first, and why."""

from ldmctl.contention import BUSY, Contention, busy
from ldmctl.training.engine import Engine

SLOWER = 3.0  # times as long as at first: a discriminator that begins costs less
FIRST = 3  # reports that say how fast steps are at first


class Slowdown:
    """Notices, once, that steps have become many times slower than they were at first."""

    def __init__(self, engine: Engine, contention: Contention | None = None):
        self.alone = engine.world == 1  # other ranks on this machine would count as others
        self.contention = contention or Contention()
        self.rates: list[float] = []
        self.slow = self.told = False

    def note(self, rate: float) -> str | None:
        """Take in the rate of a report; a sentence when two in a row are slow, the first time that this happens."""
        share, first = self.contention.share(), max(self.rates[:FIRST], default=0.0)
        self.contention.start()
        if len(self.rates) < FIRST:
            self.rates.append(rate)
            return None
        before, self.slow = self.slow, 0 < rate * SLOWER < first
        if self.told or not (before and self.slow):
            return None
        self.told = True
        text = f"Steps take {first / rate:.1f} times as long as at first."
        if share is None or not self.alone:
            return text
        if share < BUSY:
            return f"{text} Other processes use only {share:.0%} of the processors, so it is something else: a disk, heat, a shared device."
        return (
            f"{text} {busy(share)} It is as fast as before when they end. If they stay, stop it (Ctrl-C) and run the same command: "
            "beside busy neighbours it starts with threads that do not spin."
        )
