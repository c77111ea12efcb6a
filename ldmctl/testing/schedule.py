"""What a schedule promises: a steady way from data to noise."""

from typing import Any

import torch

from ldmctl.diffusion.spacing import levels, time_of
from ldmctl.testing.promises import calling, expect, expect_same, is_whole, maker, promise, shape_of


@promise("schedule")
def check_schedule(cls: type, /, **options: Any) -> None:
    """From data to noise, steadily, and found back from its own levels."""
    schedule = maker(cls, options)()
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    with calling("marginal"):
        alpha, sigma = schedule.marginal(t)
        small = schedule.marginal(t.float())
        alone = torch.cat([schedule.marginal(each.reshape(1))[0] for each in t[::100]])
    for value in (alpha, sigma):
        expect(
            value.shape == t.shape and value.dtype == t.dtype, f"marginal gave {shape_of(value)} {value.dtype} for {shape_of(t)} {t.dtype}"
        )
        expect(value.isfinite().all() and (value >= 0).all(), "alpha and sigma must be finite and not negative")
    expect(small[0].dtype == torch.float32, f"marginal gave {small[0].dtype} for float32")
    expect_same(small[0].double(), alpha, "alpha differs between float32 and float64", tolerance=1e-3)
    expect_same(alone, alpha[::100], "alpha depends on the other times of a batch")
    expect(abs(alpha[0] - 1) < 1e-3 and sigma[0] < 0.05, f"t = 0 is not data: alpha {alpha[0]:.3g}, sigma {sigma[0]:.3g}")
    expect(sigma[-1] > 5 * alpha[-1], f"t = 1 is not noise: alpha {alpha[-1]:.3g}, sigma {sigma[-1]:.3g}")
    expect(((sigma / alpha).diff() > 0).all(), "the level sigma / alpha does not rise everywhere")
    total = getattr(schedule, "timesteps", None)
    expect(total is None or (is_whole(total) and total > 1), f"timesteps is {total!r}, not a number of steps")
    if hasattr(schedule, "timestep"):
        with calling("timestep"):
            told = schedule.timestep(t)
        expect(told.shape == t.shape and (told.diff() > 0).all(), "timestep does not rise with t")
    if hasattr(schedule, "training_time"):
        u = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
        with calling("training_time"):
            trained = schedule.training_time(u)
        expect(
            trained.shape == u.shape and (trained >= 0).all() and (trained <= 1).all() and (trained.diff() >= 0).all(),
            "training_time does not rise with u within [0, 1]",
        )
    times, sigmas = levels(schedule, 20)
    found = torch.cat([time_of(schedule, level.item()) for level in sigmas[:-1]])
    expect_same(found, times, "times cannot be found back from their levels", tolerance=1e-6)
