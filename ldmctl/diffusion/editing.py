"""What a batch of pictures begins with, or is held to, besides noise: where it starts, and corrections of the clean estimate.

A correction sees each clean estimate with its graph and says how it should change, so it works with any sampler. By Tweedie's
formula an observation y adds sigma^2 d log p(y | x) / dx to the clean estimate, and of anything that is said of the clean
estimate D that is sigma^2 (dD/dx)^T times its gradient: with (dD/dx) sigma^2 the covariance that is still left of the picture.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmctl.config.levels import Spacing
from ldmctl.diffusion.spacing import CEILING, levels
from ldmctl.errors import ConfigError
from ldmctl.latents.conditions import Known
from ldmctl.protocols import Schedule

Correction = Callable[[Tensor, Tensor, float], Tensor]  # x with a graph, its clean estimate [B,c,h,w], sigma -> what to add to that
FIRST = 1e-5  # the earliest time of a schedule in continuous time
LOUD = 30.0  # sigma / alpha above which networks say more of the slope than there can be, and x holds a thousandth of the picture


class Look(NamedTuple):
    """One evaluation of a sampler, as it is seen from outside."""

    number: int  # of the evaluation, from 0
    sigma: float  # sigma / alpha
    x: Tensor  # [B,c,h,w], noisy, at that level
    clean: Tensor  # [B,c,h,w], what the sampler is told is clean
    seeds: tuple[int, ...] = ()  # of the rows


class Edit(NamedTuple):
    """Where a batch starts and what corrects it; without anything, samples from noise."""

    latent: Tensor | None = None  # [B,c,h,w] of the pictures to start from
    strength: float = 1.0  # the time to start at; at 1 nothing of `latent` is left
    first: Tensor | None = None  # [B,c,h,w], noise in place of each seed's own
    stream: int | None = None  # the seed whose noise all rows take in their steps; None: each its own
    corrections: Sequence[Correction] = ()
    repaint: Callable[[Any], Any] | None = None  # of a sampler: what takes the steps in its place
    watch: Callable[[Look], None] | None = None  # is shown each evaluation, and changes nothing
    pictures: Mapping[str, Known] = {}  # what the network hears of them

    def start(self, noise: Tensor, sigma: float) -> Tensor:
        """x [B,c,h,w] at the level sigma: as wide as noised latents of deviation 1 are there, or the pictures with noise."""
        noise = noise if self.first is None else self.first
        if self.latent is None or self.strength == 1:
            return noise * (1 + sigma**2) ** 0.5
        return self.latent + sigma * noise


FROM_NOISE = Edit()


class Corrected:
    """`denoise(x, sigma)` with corrections of what it says."""

    def __init__(self, denoise: Callable[[Tensor, Tensor | float], Tensor], corrections: Sequence[Correction]):
        self.denoise, self.corrections = denoise, corrections
        self.lowest = getattr(denoise, "lowest", 0.0)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The estimate of clean [B,c,h,w], corrected, without a graph."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = self.denoise(x, sigma)
            changes = [correct(x, clean, float(sigma)) for correct in self.corrections]
        return torch.stack([clean.detach(), *changes]).sum(0) if changes else clean.detach()


class Watched:
    """`denoise(x, sigma)`, and somebody is shown copies of what goes in and out, in the rows of these seeds; the rest fills up the batch."""

    def __init__(self, denoise: Callable[[Tensor, Tensor | float], Tensor], watch: Callable[[Look], None], seeds: Sequence[int]):
        self.denoise, self.watch, self.seeds, self.number = denoise, watch, tuple(seeds), 0
        self.lowest = getattr(denoise, "lowest", 0.0)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The estimate of clean [B,c,h,w]."""
        clean = self.denoise(x, sigma)
        shown, told = (each[: len(self.seeds)].detach().clone() for each in (x, clean))
        self.watch(Look(self.number, float(sigma), shown, told, self.seeds))
        self.number += 1
        return clean


def pulled(x: Tensor, clean: Tensor, sigma: float, direction: Tensor) -> Tensor:
    """What is left of the picture's covariance times a direction of the clean estimate, sigma^2 (dD/dx)^T direction [B,c,h,w]."""
    if sigma > LOUD:
        return direction / (1 + 1 / sigma**2)  # latents of deviation 1, of which nothing is known yet
    (slope,) = torch.autograd.grad(clean, x, direction.detach(), retain_graph=True)
    return sigma**2 * slope


def levels_below(schedule: Schedule, steps: int, spacing: Spacing | str, strength: float) -> Tensor:
    """Levels sigma / alpha [steps+1] from the time `strength` down, spaced as they are from 1 down: all steps are spent below it."""
    times, sigmas = levels(schedule, steps, spacing)
    if strength == 1:
        return sigmas
    total = getattr(schedule, "timesteps", None)
    first = 1 / total if total else FIRST
    times = first + (times - first) * (max(strength, first) - first) / (times[0] - first)
    times = times if strength > first else times[:1]
    alpha, sigma = schedule.marginal(times)
    sigmas = torch.cat([(sigma / alpha).clamp(max=CEILING), times.new_zeros(1)])
    if not (sigmas.diff() < 0).all():
        raise ConfigError(f"steps={steps} cannot be taken below strength={strength:g}: the levels are too close to differ. Take fewer.")
    return sigmas


def slerp(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Between two draws of noise of any shape, along the arc, so that what is between has their length: share 0 is `one`, 1 `other`."""
    flat = [each.double().flatten() for each in (one, other)]
    cosine = (flat[0] @ flat[1]) / (flat[0].norm() * flat[1].norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if share in (0, 1) or angle.sin() < 1e-6:
        return other if share == 1 else one
    return ((torch.sin((1 - share) * angle) * one.double() + torch.sin(share * angle) * other.double()) / angle.sin()).to(one.dtype)
