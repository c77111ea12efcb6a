"""Averages of what a training reports, over steps, micro-batches and ranks."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ldmctl.training.engine import Engine


class Meter:
    """Averages of what is reported, kept on the device and read once per report.

    A name's ending says how ranks and steps join: _sum, _max, else the mean. Histograms, _counts, are summed over an epoch
    of so many steps, or over the report without one, since how many bins are used depends on how many items were seen:
    `codes_counts` is reported as `codes_used`, `codes_dead` (the share of bins that is not) and `codes_perplexity`, of the
    last whole epoch, or in the first one so far.
    """

    def __init__(self, engine: Engine, *, epoch: int | None = None):
        self.engine = engine
        self.epoch = epoch
        self.whole: dict[str, Tensor] = {}  # histograms of the last whole epoch, over all ranks
        self.counts: dict[str, Tensor] = {}  # of this one, of this rank
        self.start()

    def start(self) -> None:
        """Forget all but the histograms and take the time."""
        self.values: dict[str, Tensor] = {}
        self.shares: dict[str, float] = {}
        self.began = time.monotonic()
        self.steps = 0.0

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around what takes time and is no step."""
        begun = time.monotonic()
        yield
        self.began += time.monotonic() - begun

    def add(self, values: Mapping[str, Tensor], share: float = 1.0) -> None:
        """Add one micro-batch."""
        for name, value in values.items():
            if name.endswith("_counts"):
                self.counts[name] = self.counts.get(name, 0) + value.detach().long()
                continue
            value = torch.as_tensor(value, device=self.engine.device).detach().float()
            old = self.values.get(name)
            if name.endswith("_max"):
                self.values[name] = value if old is None else torch.maximum(old, value)
            elif name.endswith("_sum"):
                self.values[name] = value.clone() if old is None else old + value
            else:
                self.values[name] = value * share if old is None else old + value * share
                self.shares[name] = self.shares.get(name, 0.0) + share
        if "loss" in values:
            self.steps += share

    def step(self, done: int) -> None:
        """After this many steps: an epoch may be whole."""
        if self.epoch and done % self.epoch == 0 and self.counts:
            self.whole = {name: self.engine.total(value) for name, value in self.counts.items()}
            self.counts = {}

    def read(self) -> tuple[dict[str, float], float, float]:
        """(values by name, seconds, steps) since the last reading; then starts over."""
        out: dict[str, float] = {}
        for name, value in self.values.items():
            if name.endswith("_max"):
                out[name] = float(self.engine.maximum(value))
            elif name.endswith("_sum"):
                out[name.removesuffix("_sum")] = float(self.engine.total(value))
            else:
                out[name] = float(self.engine.mean(value / self.shares[name]))
        for name, histogram in (self.whole or {name: self.engine.total(value) for name, value in self.counts.items()}).items():
            out |= {f"{name.removesuffix('_counts')}_{key}": value for key, value in spread(histogram).items()}
        if not self.epoch:
            self.counts = {}
        seconds, steps = time.monotonic() - self.began, self.steps
        self.start()
        return out, seconds, round(steps)

    def state(self) -> dict[str, Tensor]:
        """The histograms of all ranks together, by name, for the saved state; every rank must ask."""
        out = {f"meter.whole.{name}": value for name, value in self.whole.items()}
        return out | {f"meter.counts.{name}": self.engine.total(value) for name, value in self.counts.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; the first rank continues with the counts of all."""
        for kept, prefix in ((self.whole, "meter.whole."), (self.counts, "meter.counts.")):
            for name, value in state.items():
                if name.startswith(prefix):
                    mine = kept is self.whole or self.engine.leads
                    kept[name.removeprefix(prefix)] = value.to(self.engine.device) * mine


def spread(histogram: Tensor) -> dict[str, float]:
    """Of how often each bin was met, integers [K]: how many were, which share was not, and the exponential of the entropy."""
    histogram = histogram.cpu().double()
    shares = histogram / histogram.sum().clamp_min(1)
    entropy = -torch.special.xlogy(shares, shares).sum()
    return {"used": float((histogram > 0).sum()), "dead": float((histogram == 0).double().mean()), "perplexity": float(entropy.exp())}
