"""Where a sampler stops on the way from noise to data: times, and levels sigma / alpha."""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ldmctl.attribution import expect_shape
from ldmctl.errors import ConfigError
from ldmctl.protocols import Schedule

Spacing = Literal["trailing", "leading", "linspace"]
CEILING = 1e4  # the level that stands for pure noise, where alpha is 0 and sigma / alpha infinite
GRID = 1000  # steps that continuous time is thought to have, where a spacing needs to know


def levels(schedule: Schedule, steps: int, spacing: Spacing = "trailing") -> tuple[Tensor, Tensor]:
    """(times [S], levels sigma / alpha [S+1]), float64, both falling; the last level is 0.

    The spacings are those of arXiv:2305.08891, table 2, as in diffusers: `trailing` starts at pure noise (t = 1),
    `linspace` too and ends at the first step, `leading` starts below. A single step always starts at t = 1.
    """
    total = _steps(schedule)
    if steps < 1 or (total and steps > total):
        raise ConfigError(f"steps={steps} cannot be taken: ask for 1 to {total or 'some thousands'} with this schedule.")
    times = _times(steps, spacing, total) if steps > 1 else torch.ones(1, dtype=torch.float64)
    alpha, sigma = schedule.marginal(times)
    for value in (alpha, sigma):
        expect_shape(value, tuple(times.shape), schedule, "marginal")
    sigmas = torch.cat([(sigma / alpha).clamp(max=CEILING), times.new_zeros(1)])
    if not (sigmas.diff() < 0).all():
        raise ConfigError(f"steps={steps} cannot be taken: the first levels are too close to pure noise to differ. Take fewer.")
    return times, sigmas


def _times(steps: int, spacing: Spacing, total: int | None) -> Tensor:
    grid = total or max(GRID, steps)
    whole = torch.round if total else torch.clone  # half to even, as numpy does
    index = torch.arange(steps, dtype=torch.float64)
    if spacing == "trailing":
        return whole(grid - index * (grid / steps)) / grid
    if spacing == "leading":
        stride = grid // steps if total else grid / steps
        return (index.flip(0) * stride + 1) / grid
    if spacing == "linspace":
        return (whole(torch.from_numpy(np.linspace(0, grid - 1, steps)).flip(0)) + 1) / grid
    raise ConfigError(f"spacing={spacing!r} is none of {', '.join(get_args(Spacing))}.")


def time_of(schedule: Schedule, level: float) -> Tensor:
    """The time t [1], float64, at which sigma / alpha is `level`; exactly i/T at the levels of a schedule of T betas."""
    if level >= CEILING:
        return torch.ones(1, dtype=torch.float64)
    low, high = torch.zeros(()).double(), torch.ones(()).double()
    for _ in range(6):  # a thousandfold each: 1e-18 in the end, below float64
        times = torch.lerp(low, high, torch.linspace(0, 1, 1001, dtype=torch.float64))
        alpha, sigma = schedule.marginal(times)
        above = int(torch.searchsorted(sigma / alpha, level).clamp(1, 1000))
        low, high = times[above - 1], times[above]
    t = high.reshape(1)
    if total := _steps(schedule):
        step = (t * total).round()
        t = torch.where((t * total - step).abs() < 1e-6, step / total, t)
    return t


def start(noise: Tensor, sigmas: Tensor) -> Tensor:
    """x [B,c,h,w] at sigmas[0] from standard normal noise: as wide as noised latents of deviation 1 are there.

    So x_t has deviation 1 for schedules with alpha^2 + sigma^2 = 1, as in diffusers, and is the noise itself where alpha is 0.
    """
    return noise * (1 + sigmas[0].item() ** 2) ** 0.5


def _steps(schedule: Schedule) -> int | None:
    return getattr(schedule, "timesteps", None)
