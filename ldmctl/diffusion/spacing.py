"""Where a sampler stops on the way from noise to data: times, and levels sigma / alpha."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ldmctl.attribution import expect_shape
from ldmctl.config.levels import Spacing, spacing_of
from ldmctl.diffusion.spacing_rules import GRID, levels_by, positive, times_by
from ldmctl.errors import ConfigError
from ldmctl.protocols import Schedule

CEILING = 1e4  # the level that stands for pure noise, where alpha is 0 and sigma / alpha infinite
NOISE = 80.0  # the level at which spacings by level begin where the schedule's own is infinite, as in arXiv:2206.00364
BY_LEVEL = ("karras", "exponential", "log-snr", "table")
ON_THE_GRID = ("trailing", "leading", "linspace")  # which visit steps of the schedule, each once


def levels(schedule: Schedule, steps: int, spacing: Spacing | str | Sequence[float] = "beta") -> tuple[Tensor, Tensor]:
    """(times [S], levels sigma / alpha [S+1]), float64, both falling; the last level is 0.

    Of the spacings by time, those of arXiv:2305.08891, table 2, are as in diffusers: `trailing` starts at pure noise (t = 1),
    `linspace` too and ends at the first step, `leading` starts below. A single step always starts at t = 1. What cannot be
    spaced so is a ConfigError.
    """
    spacing, total = spacing_of(spacing), _steps(schedule)
    if steps < 1 or (total and steps > total and spacing.type in ON_THE_GRID):
        raise ConfigError(f"steps={steps} cannot be taken: ask for 1 to {total or 'some thousands'} with this schedule.")
    if spacing.type in BY_LEVEL:
        sigmas = levels_by(spacing, steps, *_ends_of(schedule, spacing, steps))
        times = torch.cat([time_of(schedule, level) for level in sigmas.tolist()])
    else:
        times = times_by(spacing, steps, total)
        if spacing.type == "beta":  # the more there are, the nearer to pure noise the first few are
            times[1:] *= time_of(schedule, CEILING * (1 - 1e-6)).item()
        sigmas = _levels_at(schedule, times)
    sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    if not (sigmas.diff() < 0).all():
        raise ConfigError(f"steps={steps} cannot be taken: the first levels are too close to pure noise to differ. Take fewer.")
    return times, sigmas


def _levels_at(schedule: Schedule, times: Tensor) -> Tensor:
    alpha, sigma = schedule.marginal(times)
    for value in (alpha, sigma):
        expect_shape(value, tuple(times.shape), schedule, "marginal", like=times)
    return (sigma / alpha).clamp(max=CEILING)


def ends(schedule: Schedule, *, highest: float | None = None, lowest: float | None = None) -> tuple[float, float]:
    """The first level and the last one above 0, as asked or the schedule's own; a ConfigError where it does not reach so high."""
    first = 1 / (_steps(schedule) or GRID)
    bottom, top = _levels_at(schedule, torch.tensor([first, 1.0], dtype=torch.float64)).tolist()
    if highest is not None and highest > top * 1.001:
        raise ConfigError(
            f"A first level of {highest:g} is beyond this schedule, which ends at {top:g}. The levels seem to be of another one."
        )
    return highest or (NOISE if top >= CEILING else top), lowest or bottom


def _ends_of(schedule: Schedule, spacing: Spacing, steps: int) -> tuple[float, float]:
    if spacing.type == "table":
        table = positive(spacing.table or ())
        if len(table) == 1 and steps > 1:
            raise ConfigError(f"spacing: one level cannot be spread over {steps} steps. List two or more, or take --steps 1.")
        return ends(schedule, highest=table[0], lowest=table[-1])
    highest, lowest = ends(schedule, highest=spacing.highest, lowest=spacing.lowest)
    if highest <= lowest and steps > 1:
        raise ConfigError(f"The levels cannot fall from {highest:g} to {lowest:g}: choose spacing.highest above spacing.lowest.")
    return highest, lowest


def time_of(schedule: Schedule, level: float) -> Tensor:
    """The time t [1], float64, at which sigma / alpha is `level`; exactly i/T at the levels of a schedule of T betas."""
    if level >= CEILING:
        return torch.ones(1, dtype=torch.float64)
    low, high = torch.zeros(()).double(), torch.ones(()).double()
    for _ in range(6):  # a thousandfold each: 1e-18 in the end, below float64
        times = torch.lerp(low, high, torch.linspace(0, 1, 1001, dtype=torch.float64))
        above = int(torch.searchsorted(_levels_at(schedule, times), level).clamp(1, 1000))
        low, high = times[above - 1], times[above]
    t = high.reshape(1)
    if total := _steps(schedule):
        step = (t * total).round()
        t = torch.where((t * total - step).abs() < 1e-6, step / total, t)
    return t


def first_of(schedule: Schedule) -> tuple[Tensor, float, float]:
    """(the first time t [1], float64, alpha, sigma / alpha there): 1/T with a schedule of T betas, else 0, where the level need not be 0."""
    t = torch.full((1,), 1 / total if (total := _steps(schedule)) else 0.0, dtype=torch.float64)
    alpha, sigma = (value.item() for value in schedule.marginal(t))
    return t, alpha, sigma / alpha


def start(noise: Tensor, sigmas: Tensor) -> Tensor:
    """x [B,c,h,w] at sigmas[0] from standard normal noise: as wide as noised latents of deviation 1 are there.

    So x_t has deviation 1 for schedules with alpha^2 + sigma^2 = 1, as in diffusers, and is the noise itself where alpha is 0.
    """
    return noise * (1 + sigmas[0].item() ** 2) ** 0.5


def _steps(schedule: Schedule) -> int | None:
    return getattr(schedule, "timesteps", None)
