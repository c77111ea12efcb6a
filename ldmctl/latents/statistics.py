"""What latents are like over a whole split: how far each channel spreads and what it knows of the picture, and which codes are in use.

Sums are float64 and of one latent's size, or of one number per code, however
many pictures there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ldmctl.errors import DataError
from ldmctl.latents.manifest import Statistics, Sums

SHARE = 0.01  # of a channel's variance: what must depend on the picture for the channel to count as active
FAINT = 0.01  # of the widest channel's deviation: what is narrower carries next to nothing
CONSTANT = 1e-5  # of a latent's largest value: deviations below are the rounding of float32 sums


@dataclass(frozen=True)
class LatentFacts:
    """The latents of a split, not whitened. Lists have one number per channel; `largest` and `reach` look at every value."""

    shape: tuple[int, int, int]  # c, h, w
    mean: list[float]
    deviations: list[float]
    deviation: float  # root mean square of the channels' deviations: the one number that latents with codes are divided by
    largest: float  # |z|
    reach: float  # the same after whitening, so in deviations: what a denoiser has to produce
    shares: list[float] | None  # of each channel's variance, what depends on the picture; None for one picture
    active: int | None  # how many channels are active

    @property
    def channels(self) -> int:
        """c"""
        return self.shape[0]


class Spread:
    """Mean and squared deviations of each element of [c,h,w] over pictures, and the extremes of each channel."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.square: Tensor = torch.zeros(())
        self.low: Tensor = torch.zeros(())
        self.high: Tensor = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """[B,c,h,w]; the same result in any batches, up to rounding (Chan, Golub and LeVeque 1979)."""
        given = values.detach().to("cpu", torch.float64)
        count, mean = len(given), given.mean(0)
        square, low, high = (given - mean).square().sum(0), given.amin((0, 2, 3)), given.amax((0, 2, 3))
        if self.count:
            gap, total = mean - self.mean, self.count + count
            square = self.square + square + gap.square() * (self.count * count / total)
            mean = self.mean + gap * (count / total)
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.count, self.mean, self.square, self.low, self.high = self.count + count, mean, square, low, high

    def over_pictures(self) -> Tensor:
        """[c]: variance over pictures at one place, averaged over places."""
        return (self.square / self.count).mean((1, 2))

    def over_all(self) -> Tensor:
        """[c]: variance over pictures and places."""
        return self.over_pictures() + self.mean.var((1, 2), correction=0)


class LatentStatistics:
    """Latents of a split, batch by batch."""

    def __init__(self) -> None:
        self.drawn, self.modes = Spread(), Spread()

    def add(self, latent: Tensor, mode: Tensor) -> None:
        """[B,c,h,w] as a denoiser would see it, before whitening, and without the posterior's noise."""
        self.drawn.add(latent)
        self.modes.add(mode)

    def facts(self, rescale: str) -> LatentFacts:
        """`rescale` as an autoencoder has it: one deviation per `channel`, or a `common` one.

        A channel is active when at least 1 % of the variance of what is drawn at a place is the variance of the mode there, so
        depends on the picture and is not the posterior's noise. That is the active unit of Burda et al. (arXiv:1509.00519, section
        5.2: variance of the posterior's mean above 0.01) with the prior's variance of 1 replaced by the channel's own, since the
        small weights of the divergence that are usual in front of a diffusion model leave latents with any scale. It must also
        be wider than 1 % of the widest channel and than rounding, which catches dead channels of autoencoders without noise.
        """
        mean, deviations = self.drawn.mean.mean((1, 2)), self.drawn.over_all().sqrt()
        extreme = torch.maximum(self.drawn.high, -self.drawn.low).max()
        moves = deviations > torch.maximum(FAINT * deviations.max(), CONSTANT * extreme)
        common = deviations.square().mean().sqrt()
        by = deviations if rescale == "channel" else common.expand_as(deviations)
        reaches = torch.maximum(self.drawn.high - mean, mean - self.drawn.low) / by
        broken = not bool(deviations.isfinite().all())
        shares = None
        if self.drawn.count > 1:
            noisy, known = self.drawn.over_pictures(), self.modes.over_pictures()
            shares = torch.where(noisy > 0, known / noisy, torch.zeros_like(known)).clamp(max=1) * (deviations > CONSTANT * extreme)
        return LatentFacts(
            shape=tuple(self.drawn.mean.shape),  # type: ignore[arg-type]
            mean=mean.tolist(),
            deviations=deviations.tolist(),
            deviation=common.item(),
            largest=extreme.item(),
            reach=math.nan if broken else reaches[moves].max().item() if moves.any() else 0.0,
            shares=None if shares is None else shares.tolist(),
            active=None if shares is None else int((moves & (shares > SHARE)).sum()),
        )


class RunningStatistics:
    """Mean and deviation of latents, float64, gathered batch by batch and merged by Chan's formula."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.square: Tensor = torch.zeros(())  # sum of squared distances from the mean, per channel

    def add(self, latent: Tensor) -> None:
        """[B,c,h,w], not whitened."""
        values = latent.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
        mean = values.mean(1)
        self._merge(values.shape[1], mean, (values - mean[:, None]).square().sum(1))

    def merge(self, sums: Sums) -> None:
        """Those of other latents."""
        self._merge(sums.count, torch.tensor(sums.mean, dtype=torch.float64), torch.tensor(sums.square, dtype=torch.float64))

    def sums(self) -> Sums:
        """What was gathered so far."""
        return Sums(count=self.count, mean=self.mean.tolist(), square=self.square.tolist())

    def _merge(self, count: int, mean: Tensor, square: Tensor) -> None:
        gap = mean - self.mean
        total = self.count + count
        self.square = self.square + square + gap.square() * (self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total

    def statistics(self, rescale: str) -> Statistics:
        """`channel`: a deviation for each channel; `common`: the same one, their root mean square, for all."""
        variance = self.square / max(self.count, 1)
        if rescale == "common":
            variance = variance.mean().expand_as(variance)
        if not bool((variance > 0).all()) or not bool(variance.isfinite().all()):
            dead = [channel for channel, value in enumerate(variance.tolist()) if not value > 0]
            raise DataError(
                f"Latent channels {dead} are the same for every picture; such latents cannot be whitened. Train the autoencoder longer."
            )
        return Statistics(mean=self.mean.tolist(), deviation=variance.sqrt().tolist())
