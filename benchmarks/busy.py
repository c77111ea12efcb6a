"""Training beside busy neighbours: what waiting threads cost when they spin for long, and when they soon go to sleep.

python benchmarks/busy.py              # three minutes on two cores; writes results/busy.json
python benchmarks/busy.py --rounds 1 --seconds 2 --print   # only a look

A neighbour is a process that does nothing but use a core; there are none, one, or two. The threads of a step wait for each other at the end of
each piece of work that they share. libgomp, the OpenMP of torch's wheels for Linux, has a waiting thread look 300,000 times before it
sleeps: on a core of its own it is there at once, on a shared one it uses up the time in which the thread that it waits for could have run.

`spinning` is libgomp's default, `yielding` looks GOMP_SPINCOUNT times as in YIELDING. Both sides are the commands `ldmctl fit-ae` and `ldmctl
fit-diffusion` as they are, told so by their environment and both running the whole time; one of them is stopped (SIGSTOP) while the other is timed, in
turn, round after round. A rate is items over seconds of the reports of a window, one each step, but for its first, which holds the stop; kept is the
median of the rounds, and of the ratio the median of the rounds' ratios. `cores` is the processor time of a side over the time of the clock: what it
was given. A window in which others took more than a tenth of a core is measured again, a few times; `others` is the most cores they took in one that was kept.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from machine import describe, keep
from random_cache import make
from rounds import reported

NEIGHBOURS = (0, 1, 2)
YIELDING = 3000  # as ldmctl sets it where it starts beside busy neighbours and the user has not
SIDES = {"spinning": "300000", "yielding": str(YIELDING)}
LATENT = (3, 7, 7)
LOOP = {"steps": 10**6, "report": 1, "save": 10**6, "preview": 10**6}  # ended by a signal, long before
STAGES: dict[str, dict[str, Any]] = {
    "fit-ae": {
        "data": "shapes",
        "image": {"size": 64},
        "autoencoder": {"type": "vae", "channels": 4, "widths": [32, 64, 128, 128], "layers": 1, "norm_groups": 8},
        "loop": {**LOOP, "batch": 16, "workers": 0},
    },
    "fit-diffusion": {
        "denoiser": {"type": "unet", "widths": [64, 128], "layers": 2, "attention": [False, True], "head_dim": 32, "norm_groups": 16},
        "conditioner": None,
        "preview": {"count": 1, "steps": 1},
        "loop": {**LOOP, "batch": 64},
    },
}
OTHERS = 0.1  # cores that are neither a side's nor a neighbour's
TRIES = 3
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Prepare a cache, measure each stage beside each number of neighbours, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=1.5, help="of a window; it ends with a step, and has three at least")
    options.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    found: dict[str, Any] = {"spins": SIDES, "rounds": asked.rounds, "seconds": asked.seconds, "precision": asked.precision, "stages": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, latent=LATENT, count=1024)
        for stage in STAGES:
            found["stages"][stage] = beside_neighbours(stage, folder, asked)
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("busy", found, machine)


def beside_neighbours(stage: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Of one stage, by number of neighbours: the rates of both sides, their ratio, and what of the quiet rate is left."""
    out: dict[str, Any] = {}
    with ExitStack() as stack:
        sides = {side: stack.enter_context(training(stage, side, folder, asked.precision)) for side in SIDES}
        for count in NEIGHBOURS:
            with neighbours(count) as busy:
                out[str(count)] = compared(sides, busy, asked)
            for side in SIDES:
                out[str(count)][side]["of_quiet"] = round(out[str(count)][side]["per_second"] / out["0"][side]["per_second"], 3)
            print(f"{stage}, {count} neighbours: {json.dumps(out[str(count)])}", file=sys.stderr)
    return out


def compared(sides: dict[str, "Side"], busy: list[int], asked: argparse.Namespace) -> dict[str, Any]:
    """Both sides once per round, in turn, the one that begins changing, and twice as many rounds without neighbours; then medians."""
    windows: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(asked.rounds if busy else 2 * asked.rounds):
        for side in list(sides)[:: -1 if number % 2 else 1]:
            windows[side].append(undisturbed(sides[side], busy, asked.seconds))
    rates = {side: [window["per_second"] for window in done] for side, done in windows.items()}
    ratios = [one / other for one, other in zip(rates["yielding"], rates["spinning"], strict=True)]
    out: dict[str, Any] = {
        side: {
            "per_second": round(statistics.median(rates[side]), 1),
            "rounds": [round(rate, 1) for rate in rates[side]],
            "cores": round(statistics.median(window["cores"] for window in done), 2),
        }
        for side, done in windows.items()
    }
    others = max(window["others"] for done in windows.values() for window in done)
    return out | {"yielding_over_spinning": round(statistics.median(ratios), 3), "others": round(others, 2)}


# -- who runs ----------------------------------------------------------------------


class Side:
    """A training that runs, or is stopped between windows."""

    def __init__(self, process: subprocess.Popen, run: Path):
        self.process, self.run = process, run

    def reports(self) -> int:
        """How many steps it has reported."""
        if self.process.poll() is not None:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended with {self.process.returncode}.")  # type: ignore[arg-type]
        file = self.run / "metrics.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def wait(self, count: int) -> None:
        """Until it has reported so many steps."""
        while self.reports() < count:
            time.sleep(0.02)

    def window(self, seconds: float) -> list[float]:
        """Let it go on for so many seconds, and three steps at least -> items per second of each step that is wholly within."""
        self.process.send_signal(signal.SIGCONT)
        self.wait(first := self.reports() + 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.02)
        self.wait(last := max(self.reports(), first + 2) + 1)
        self.process.send_signal(signal.SIGSTOP)
        return reported(self.run, "images_per_second")[first:last]


@contextmanager
def training(stage: str, side: str, folder: Path, precision: str) -> Iterator[Side]:
    """A stage under way and stopped; it ends with the context."""
    config = {**STAGES[stage], "machine": {"device": "cpu", "precision": precision}}
    (folder / f"{stage}.yaml").write_text(json.dumps(config))
    run = folder / f"{stage}-{side}"
    words = [stage, "--config", f"{stage}.yaml", "--out", str(run), "-q"] + ["--latents", "cache"] * (stage == "fit-diffusion")
    told = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | {"GOMP_SPINCOUNT": SIDES[side]}
    process = subprocess.Popen([sys.executable, "-m", "ldmctl", *words], cwd=folder, env=told)
    try:
        under_way = Side(process, run)
        under_way.wait(4)
        process.send_signal(signal.SIGSTOP)
        yield under_way
    finally:
        process.kill()
        process.wait()


@contextmanager
def neighbours(count: int) -> Iterator[list[int]]:
    """So many processes, each of which uses as much of a core as it is given -> their numbers."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield [process.pid for process in busy]
    finally:
        for process in busy:
            process.kill()
            process.wait()


# -- who else ran ------------------------------------------------------------------


def undisturbed(side: Side, busy: list[int], seconds: float) -> dict[str, float]:
    """A window of a side, of several the one with the fewest others where none is without: items per second, and cores that it and others used."""
    tried: list[dict[str, float]] = []
    while len(tried) < TRIES and not (tried and tried[-1]["others"] < OTHERS):
        began, own, known, whole = time.monotonic(), used(side.process.pid), sum(map(used, busy)), used_by_all()
        rates = side.window(seconds)
        spent, own, known = time.monotonic() - began, used(side.process.pid) - own, sum(map(used, busy)) - known
        others = used_by_all() - whole - own - known
        tried.append({"per_second": statistics.harmonic_mean(rates), "cores": own / spent, "others": others / spent})
    return min(tried, key=lambda window: window["others"])


def used(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def used_by_all() -> float:
    """Seconds of processor time that all processes together have used, and what a host took from this machine."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICK  # without idle and waiting for a disk


if __name__ == "__main__":
    main()
