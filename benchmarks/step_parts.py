"""Where the time of a training step of fit-diffusion goes: forward, backward, optimizer, moving average, and what is left.

python benchmarks/step_parts.py              # three minutes on two cores; writes results/step_parts.json
python benchmarks/step_parts.py --rounds 1 --steps 8 --print   # only a look

The command `ldmctl fit-diffusion` as it is, not compiled, on a cache of moments of a VAE, so that batches are read, drawn and whitened as in earnest. The
methods that do the four parts are wrapped by a clock; what a step takes beyond them is `outside`: reading, noise, the loss, reports (every ten steps
here, a hundred by default) and the loop itself. A step lasts from one update to the next; the first ten are left out, and states and previews, which
come every thousand steps, do not happen. On a CUDA device the clock reads events on its stream, so a part includes the time in which the device waits
for the host within it.

`outside_share` is of all time, `outside_share_of_medians` of the median step; of both the median over rounds, each in a process of its own. Goal: 3 %.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep
from process import main as command_here
from process import script
from random_cache import make

from ldmctl.diffusion.network import Network
from ldmctl.training.learner import Learner

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"latent": [3, 8, 8], "widths": [64, 128], "latents": 1024},
    "cuda": {"latent": [3, 32, 32], "widths": [128, 256, 384, 512], "latents": 4096},
}
BATCHES = (16, 64)
LEFT_OUT = 10  # steps at the beginning
PARTS: dict[str, tuple[type, str]] = {
    "forward": (Network, "forward"),
    "backward": (torch.Tensor, "backward"),
    "optimizer": (Learner, "update"),
    "average": (Learner, "track"),
}


def main() -> None:
    """Prepare a cache, measure each batch size round after round, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=80, help=f"of one run; the first {LEFT_OUT} are left out where there are more")
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = SIZES[device]
    found: dict[str, Any] = {"sizes": sizes, "steps": asked.steps, "rounds": asked.rounds, "batches": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, latent=tuple(sizes["latent"]), count=sizes["latents"], autoencoder="vae")
        for batch in BATCHES:
            runs = [once(folder, sizes, batch, asked.steps, device) for _ in range(asked.rounds)]
            found["batches"][str(batch)] = {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("step_parts", found, machine)


def once(folder: Path, sizes: dict[str, Any], batch: int, steps: int, device: str) -> dict[str, float]:
    """One run of the command in a process of its own -> milliseconds of each part of a step, and the shares of what is outside them."""
    config = {
        "denoiser": {"type": "unet", "widths": sizes["widths"], "layers": 2},
        "conditioner": None,
        "preview": {"count": 1, "steps": 1},
        "loop": {"steps": steps, "batch": batch, "report": 10, "save": 10**6, "preview": 10**6},
        "machine": {"device": device, "compile": False},
    }
    (folder / "parts.yaml").write_text(json.dumps(config))
    words = ["fit-diffusion", "--config", "parts.yaml", "--latents", "cache", "--out", "run", "--overwrite", "-q", "--json"]
    return script(Path(__file__), "--clocked", *words, cwd=folder)["parts"]


# -- the clock ---------------------------------------------------------------------


class Clock:
    """Spans of time by name: seconds on a CPU, events on the stream of a CUDA device."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        self.steps: list[dict[str, list[tuple[Any, Any]]]] = []  # of each step the spans of its parts
        self.began: list[Any] = []  # of each step

    def now(self) -> Any:
        """A moment."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin: Any, end: Any) -> float:
        """Seconds from one moment to another."""
        return begin.elapsed_time(end) / 1000 if self.cuda else end - begin

    def around(self, name: str, function: Callable) -> Callable:
        """The same function, its time noted; an `optimizer` begins a step."""

        @functools.wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            begin = self.now()
            if name == "optimizer":
                self.began.append(begin)
                self.steps.append({part: [] for part in PARTS})
            out = function(*given, **named)
            if self.steps:
                self.steps[-1][name].append((begin, self.now()))
            return out

        return timed

    def read(self) -> dict[str, float]:
        """Milliseconds of the median step and of its parts, and the shares of what is outside them."""
        if self.cuda:
            torch.cuda.synchronize()
        first = min(LEFT_OUT, len(self.began) // 2)
        whole = [self.between(*pair) for pair in zip(self.began, self.began[1:], strict=False)][first:]
        parts = {
            name: [sum(self.between(*span) for span in step[name]) for step in self.steps[first : first + len(whole)]] for name in PARTS
        }
        outside = [step - sum(each) for step, *each in zip(whole, *parts.values(), strict=True)]
        middle = {name: statistics.median(values) for name, values in {"step": whole, **parts, "outside": outside}.items()}
        shares = {
            "outside_share": sum(outside) / sum(whole),
            "outside_share_of_medians": middle["outside"] / middle["step"],
        }
        return {f"{name}_ms": 1000 * seconds for name, seconds in middle.items()} | shares


def clocked() -> None:
    """The command in this process, its parts timed."""
    clock = Clock()
    for name, (owner, method) in PARTS.items():
        setattr(owner, method, clock.around(name, getattr(owner, method)))
    command_here()
    print(json.dumps({"parts": clock.read()}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--clocked"]:
        del sys.argv[1]
        clocked()
    else:
        main()
