"""The rules by which the stops of a sampler are spaced: evenly in some measure of time or of the level sigma / alpha."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ldmctl.config.levels import Spacing

GRID = 1000  # steps that continuous time is thought to have, where a spacing needs to know


def times_by(spacing: Spacing, steps: int, total: int | None) -> Tensor:
    """Times [S], float64, falling from at most 1, by a rule that spaces times; `total` is the schedule's own number of steps."""
    grid = total or max(GRID, steps)
    whole = torch.round if total else torch.clone  # half to even, as numpy does
    index = torch.arange(steps, dtype=torch.float64)
    if steps == 1:
        times = torch.ones(1, dtype=torch.float64)
    elif spacing.type == "trailing":
        times = whole(grid - index * (grid / steps)) / grid
    elif spacing.type == "leading":
        stride = grid // steps if total else grid / steps
        times = (index.flip(0) * stride + 1) / grid
    elif spacing.type == "linspace":
        times = (whole(torch.from_numpy(np.linspace(0, grid - 1, steps)).flip(0)) + 1) / grid
    elif spacing.type == "uniform":
        times = 1 - index / steps
    elif spacing.type == "quadratic":
        times = torch.linspace(1, grid**-0.5, steps, dtype=torch.float64) ** 2
    else:  # the quantiles 1, 1 - 1/S, ... of Beta(alpha, beta), among the steps (arXiv:2407.12173)
        times = (torch.tensor(beta_quantiles(steps, spacing.alpha, spacing.beta), dtype=torch.float64) * (grid - 1) + 1) / grid
    return times if spacing.shift == 1 else spacing.shift * times / (1 + (spacing.shift - 1) * times)


def levels_by(spacing: Spacing, steps: int, highest: float, lowest: float) -> Tensor:
    """Levels [S], float64, falling from `highest` to `lowest`, by a rule that spaces levels; a table has its own ends."""
    place = torch.linspace(0, 1, steps, dtype=torch.float64)
    if spacing.type == "karras":  # arXiv:2206.00364, eq. 5
        power = 1 / spacing.rho
        return (highest**power + place * (lowest**power - highest**power)) ** spacing.rho
    known = np.log(positive(spacing.table or ()) if spacing.type == "table" else [highest, lowest])
    return torch.from_numpy(np.exp(np.interp(place.numpy(), np.linspace(0, 1, len(known)), known)))


def positive(table: Sequence[float]) -> list[float]:
    """The levels of a table without the 0 at its end."""
    return [level for level in table if level > 0]


@cache
def beta_quantiles(steps: int, alpha: float, beta: float) -> tuple[float, ...]:
    """The quantiles 1, 1 - 1/S, ..., 1/S of Beta(alpha, beta)."""
    return tuple(beta_quantile(1 - place / steps, alpha, beta) for place in range(steps))


def beta_quantile(share: float, alpha: float, beta: float) -> float:
    """The t in [0, 1] below which lies this share of Beta(alpha, beta)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_share(middle, alpha, beta) < share else (low, middle)
    return high


def beta_share(t: float, alpha: float, beta: float) -> float:
    """The share of Beta(alpha, beta) below t: the regularised incomplete beta function, by its power series."""
    if t > 0.5:
        return 1 - beta_share(1 - t, beta, alpha)
    if t <= 0:
        return 0.0
    total = term = 1.0
    place = 0
    while term > 1e-17 * total:
        term *= t * (alpha + beta + place) / (alpha + 1 + place)
        total += term
        place += 1
    scale = math.lgamma(alpha + beta) - math.lgamma(alpha + 1) - math.lgamma(beta)
    return total * math.exp(scale + alpha * math.log(t) + beta * math.log1p(-t))
