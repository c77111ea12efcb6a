"""How much of the processors other processes take while this one computes, and whether steps have become many times slower.

On a CPU the threads of one operation wait for each other, so a step ends when its slowest thread does: neighbours that
take half of the processors can cost far more than half of the speed, and no number of the run says why.
"""

import os
import time
from pathlib import Path

from ldmctl.training.engine import Engine

BUSY = 0.25  # share of the processors that others take, from which it is worth a sentence
SLOWER = 3.0  # times as long as at first: a discriminator that begins costs less
FIRST = 3  # reports that say how fast steps are at first
SHORTEST = 0.1  # seconds: the kernel counts in hundredths


class Contention:
    """What other processes use of the processors that this one may run on. Processes that this one started are not others."""

    def __init__(self, proc: Path = Path("/proc")):
        self.proc = proc
        self.start()

    def start(self) -> None:
        """Measure from now on."""
        self.began = time.monotonic()
        self.before = self._taken()

    def share(self) -> float | None:
        """The share in [0, 1] since `start`; None where the system does not say, or too little time has passed."""
        now, seconds = self._taken(), time.monotonic() - self.began
        if now is None or self.before is None or seconds < SHORTEST:
            return None
        (everyone, own), (everyone_before, own_before) = now, self.before
        others = (everyone - everyone_before) - max(own - own_before, 0.0)
        return min(max(others / (seconds * len(os.sched_getaffinity(0))), 0.0), 1.0)

    def _taken(self) -> tuple[float, float] | None:
        """Seconds that the processors of this process have worked, for everyone and for this process and its descendants."""
        try:
            ticks = os.sysconf("SC_CLK_TCK")
            ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
            rows = [line.split() for line in (self.proc / "stat").read_text().splitlines() if line.startswith("cpu")]
            # user, nice, system, interrupts of both kinds, and what other guests of the same host took: all but idle and waiting
            everyone = sum(sum(int(row[column]) for column in (1, 2, 3, 6, 7, 8)) for row in rows if row[0] in ours)
            return everyone / ticks, self._own() / ticks
        except (OSError, ValueError, IndexError, AttributeError):  # not Linux, or a /proc that is closed
            return None

    def _own(self) -> int:
        """Clock ticks of this process and its descendants, of those that have ended too."""
        ticks, parents = {}, {}
        for file in self.proc.glob("[0-9]*/stat"):
            try:
                fields = file.read_text().rpartition(")")[2].split()  # after the name, which may hold anything
            except OSError:  # it has ended
                continue
            process = int(file.parent.name)
            parents[process], ticks[process] = int(fields[1]), sum(int(each) for each in fields[11:15])
        ours = {os.getpid()}
        while more := {process for process, parent in parents.items() if parent in ours} - ours:
            ours |= more
        return sum(ticks.get(process, 0) for process in ours)


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
        return f"{text} {busy(share)} Training continues, and is as fast as before when they end."


def busy(share: float) -> str:
    """A sentence on what others take."""
    return f"Other processes use {share:.0%} of this machine's processors."
