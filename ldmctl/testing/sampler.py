"""What a sampler promises: tried on a Gaussian, whose best estimate is known."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ldmctl.diffusion.denoise import Noise
from ldmctl.diffusion.spacing import CEILING, start
from ldmctl.testing.promises import calling, expect, expect_same, maker, promise, shape_of


@promise("sampler")
def check_sampler(cls: type, /, **options: Any) -> None:
    """From noise to a Gaussian whose best estimate is known, each picture on its own."""
    sampler = maker(cls, options)()
    t = torch.linspace(1, 1 / 200, 200, dtype=torch.float64)
    sigmas = torch.cat([torch.tan(t * (torch.pi / 2)).abs().clamp(max=CEILING), t.new_zeros(1)])
    mean, deviation = 0.3, 0.5

    def ideal(x: Tensor, sigma: Tensor) -> Tensor:
        expect(0 < float(sigma) <= CEILING, f"it asks what is clean at sigma = {float(sigma):g}, and levels go from {CEILING:g} to above 0")
        return mean + deviation**2 / (deviation**2 + float(sigma) ** 2) * (x - mean)

    def sampled(seeds: Sequence[int], denoise: Any = ideal, wanted: Tensor = sigmas, side: int = 8) -> Tensor:
        noise = Noise(seeds, (4, side, side))
        x = start(noise.first(), wanted)
        kept = x.clone(), wanted.clone()

        def asked(given: Tensor, sigma: Tensor) -> Tensor:
            expect(given.shape == x.shape, f"it asks what is clean of {shape_of(given)}, not of all {shape_of(x)} together")
            return denoise(given, sigma)

        with calling("the call"):
            out = sampler(asked, x, wanted, noise)
        expect(out.shape == x.shape and out.dtype == x.dtype, f"it gave {shape_of(out)} {out.dtype} for {shape_of(x)} {x.dtype}")
        expect(torch.equal(x, kept[0]) and torch.equal(wanted, kept[1]), "it changes x or sigmas, which belong to the caller")
        expect(out.isfinite().all(), "it leaves the finite numbers")
        return out

    several = sampled([0, 1, 2])
    expect_same(
        sampled([0, 1, 2]), several, "it gives two samples for the same noise; take random numbers from `noise` alone", exactly=True
    )
    expect_same(sampled([1]), several[1:2], "a sample depends on the others of its batch")
    for steps in (1, 2, 10):
        few = sigmas[torch.linspace(0, 200, steps + 1).long()]
        expect_same(
            sampled([0], lambda x, sigma: torch.full_like(x, 0.7), few), torch.full((1, 4, 8, 8), 0.7), f"{steps} steps miss a known answer"
        )
    if hasattr(sampler, "evaluations"):
        _check_evaluations(sampler, sampled, sigmas)
    many = sampled([5], side=96)
    found = f"mean {many.mean():.3f} and deviation {many.std():.3f}"
    expect(
        abs(many.mean() - mean) < 0.05 and abs(many.std() - deviation) < 0.05,
        f"data of mean 0.3 and deviation 0.5 are sampled with {found}",
    )


def _check_evaluations(sampler: Any, sampled: Callable[..., Tensor], sigmas: Tensor) -> None:
    """evaluations, where it exists and gives a number, says how often `denoise` is called."""
    for steps in (1, 2, 10):
        calls = 0

        def counted(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return torch.full_like(x, 0.7)

        with calling("evaluations"):
            said = sampler.evaluations(steps)
        if said is None:
            continue
        sampled([0], counted, sigmas[torch.linspace(0, 200, steps + 1).long()])
        expect(said == calls, f"evaluations({steps}) is {said!r}, and the network is evaluated {calls} times in {steps} steps")
