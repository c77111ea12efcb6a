"""Whether a validation loss has begun to rise, in units of its own noise.

The best of a curve is the lowest median of three neighbours; it has risen where its last three values all lie above that by more than
a bound and by more than its noise. Curves of training fall fast at first and slowly later, which is no noise. So it is measured in two
ways on the values up to the best, and the larger counts: around the curve that never rises and is nearest to them, so that values that
wander count as noisy too, and by their second differences, which hardly see a curve that bends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from ldmctl.config.schemas.shared import Loop
from ldmctl.console import Console

APART = 50  # steps between validations at least, so that they cost little
SIGMAS = 8.0  # what a rise must exceed: of 1,000 flat curves fewer than ten are ever called risen (tests/training/test_watch.py)
LEAST = 12  # values before anything is said
NEAR = 24  # values up to the best one that the noise is taken from
ENOUGH = 8  # of them; where there are fewer, it is taken from all but those that are judged
BENDS = 0.6745 * math.sqrt(6)  # the median second difference, without its sign, of normal noise of deviation 1
BACK = 0.1  # of the way, in a few validations, that counts as coming back


def watched_every(loop: Loop) -> int:
    """Steps between validations for the watch."""
    return max(APART, round(loop.watch.every * loop.steps))


def say_unwatched(loop: Loop, held_out: int, console: Console) -> None:
    """What follows where no item is held out, of a run that would be watched."""
    if loop.watch.bound is not None and not held_out:
        console.say("Nothing is held out, so losses that rise are not noticed and no best weights are kept: the last ones are published.")


class Rise(NamedTuple):
    """A loss that has risen from its `best`, around step `at`, to `now`, the lowest of its last three."""

    name: str
    best: float
    at: int
    now: float

    def __str__(self) -> str:
        return f"{self.name.removeprefix('val/')} has risen from {self.best:.4g} around step {self.at:,} to {self.now:.4g} or more in its last three validations"


class Curves:
    """Validation losses by name and the steps they belong to: plain numbers that are kept with the state of a run."""

    def __init__(self, kept: dict[str, Any]):
        self.steps: list[int] = kept.setdefault("steps", [])
        self.values: dict[str, list[float]] = kept.setdefault("values", {})

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The losses after so many steps. A step with one that is not finite is passed over, and so is one that was not measured before;
        one that is no longer looked at is forgotten."""
        if not values:
            return
        for name in self.values.keys() - values.keys():
            del self.values[name]
        if not self.values:
            self.steps.clear()
        known = {name: float(values.get(name, math.nan)) for name in (self.values or values)}
        if not all(map(math.isfinite, known.values())) or step in self.steps[-1:]:
            return
        self.steps.append(step)
        for name, value in known.items():
            self.values.setdefault(name, []).append(value)

    def cut(self, step: int) -> None:
        """Forget the losses after so many steps: training went back to the weights of then."""
        count = sum(each <= step for each in self.steps)
        del self.steps[count:]
        for values in self.values.values():
            del values[count:]

    def around(self, name: str, step: int) -> float | None:
        """What a loss was after so many steps: the median of the last three values until then, None before the first."""
        until = [value for at, value in zip(self.steps, self.values.get(name, ()), strict=False) if at <= step]
        return median(until[-3:]) if until else None

    def falls(self, rise: Rise, over: int) -> bool:
        """Whether a loss that has risen is on its way back: in so many validations by a tenth of what it lies above its best."""
        curve = self.values[rise.name]
        return curve[-1] < curve[-1 - over] - BACK * (curve[-1 - over] - rise.best)

    def risen(self, bound: float) -> Rise | None:
        """The loss that has risen most, relative to its best, where one has by more than `bound` (0.1 is a tenth) and than its noise."""
        found = [rise for name, curve in self.values.items() if (rise := risen(name, self.steps, curve, bound)) is not None]
        return max(found, key=lambda rise: rise.now / rise.best, default=None)


def risen(name: str, steps: Sequence[int], curve: Sequence[float], bound: float) -> Rise | None:
    """What there is to say of one curve of positive values."""
    if len(curve) < LEAST:
        return None
    smooth = [median(curve[index - 1 : index + 2]) for index in range(1, len(curve) - 1)]
    place = min(reversed(range(len(smooth))), key=smooth.__getitem__)  # of equal ones the last
    best, now = smooth[place], min(curve[-3:])
    before = curve[: place + 2] if place + 2 >= ENOUGH else curve[:-3]
    if best <= 0 or now <= max((1 + bound) * best, best + SIGMAS * noise(before[-NEAR:])):
        return None
    return Rise(name, best, steps[place + 1], now)


def noise(curve: Sequence[float]) -> float:
    """The deviation of the values of a curve that falls or stays."""
    blocks: list[tuple[float, int]] = []  # (mean, how many) of the nearest curve that never rises: neighbours that do are pooled
    for value in curve:
        mean, count = value, 1
        while blocks and blocks[-1][0] < mean:
            earlier, many = blocks.pop()
            mean, count = (earlier * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    nearest = [mean for mean, count in blocks for _ in range(count)]
    left = sum((value - near) ** 2 for value, near in zip(curve, nearest, strict=True))
    bends = [abs(one - 2 * two + three) for one, two, three in zip(curve, curve[1:], curve[2:], strict=False)]
    return max(math.sqrt(left / max(len(curve) - len(blocks), 1)), median(bends) / BENDS)
