"""How much of the processors other processes take while this one computes, and what this one does about it. Without torch.

On a CPU the threads of one operation wait for each other, so a step ends when its slowest thread does. libgomp, the OpenMP of
torch for Linux, has a waiting thread look 300,000 times before it sleeps. On a processor of its own it is there at once; on a
shared one it uses up the very time in which the thread that it waits for could run, and two neighbours cost far more than their
half of the speed. Looking 3,000 times costs 2 to 5 % of the speed on a quiet machine, and beside neighbours it is 1.2 to 2.7 times as
fast, with the same bits (python benchmarks/busy.py). So it is done where others are busy when a command starts.
"""

import os
import time
from pathlib import Path

BUSY = 0.25  # share of the processors that others take, from which something is said or done
SHORTEST = 0.1  # seconds: the kernel counts in hundredths
SPINS = "3000"  # looks of a waiting thread
HEAVY = ("fit-ae", "fit-diffusion", "encode-dataset", "sample", "eval-lpips", "spacing", "fit-token", "quickstart")  # commands that compute


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


def busy(share: float) -> str:
    """A sentence on what others take."""
    return f"Other processes use {share:.0%} of this machine's processors."


def wait_sparingly(words: list[str]) -> bool:
    """Before torch is imported: where a command that computes starts beside busy neighbours, have waiting threads soon sleep; whether it did.

    What the environment says of OpenMP already stays.
    """
    if not words or words[0] not in HEAVY or {"--help", "-h"} & set(words) or {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        return False
    contention = Contention()
    if contention.before is None:
        return False
    time.sleep(1.2 * SHORTEST)
    share = contention.share()
    if share is None or share < BUSY:
        return False
    os.environ["GOMP_SPINCOUNT"] = SPINS
    return True
