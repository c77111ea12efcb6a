"""How close pictures are to their originals: PSNR and SSIM per picture, and means over many with their interval.

Both are taken of the pictures as they would be saved, in 8 bits, so decoders are
compared by what they show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmctl.errors import DataError
from ldmctl.pictures.images import to_uint8

C1, C2 = 0.01**2, 0.03**2  # of SSIM, for a range of 1
BELL = [math.exp(-(place**2) / (2 * 1.5**2)) for place in range(-5, 6)]
TAPS = [height / sum(BELL) for height in BELL]  # of SSIM's window
NORMAL_95 = 1.959964  # quantile 0.975 of the normal distribution


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """[B,C,H,W] twice in [-1, 1] -> [B] decibels of range 1; equal pictures, which would be infinite, count 100."""
    error = (_as_saved(image) - _as_saved(target)).square().flatten(1).mean(1)
    return -10 * error.clamp_min(1e-10).log10()


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """[B,C,H,W] twice in [-1, 1] -> [B] structural similarity, 1 when equal (Wang et al. 2004: Gaussian window of 11 pixels)."""
    if min(image.shape[-2:]) < 11:
        raise DataError(f"SSIM looks through a window of 11 x 11 pixels, these pictures have {image.shape[-1]} x {image.shape[-2]}.")
    one, other = _as_saved(image), _as_saved(target)
    mean_1, mean_2, square_1, square_2, product = (_window(each) for each in (one, other, one * one, other * other, one * other))
    luminance = (2 * mean_1 * mean_2 + C1) / (mean_1**2 + mean_2**2 + C1)
    structure = (2 * (product - mean_1 * mean_2) + C2) / (square_1 - mean_1**2 + square_2 - mean_2**2 + C2)
    return (luminance * structure).flatten(1).mean(1)


def _window(image: Tensor) -> Tensor:
    """[B,C,H,W] -> [B,C,H,W]: means weighted by a Gaussian of 1.5 pixels over windows of 11 x 11, the picture reflected at its edges."""
    image = F.pad(image, (5, 5, 5, 5), mode="reflect")
    for dim in (-2, -1):  # by sums, which no device rounds to TF32 as it may a convolution
        length = image.shape[dim] - len(TAPS) + 1
        image = sum(tap * image.narrow(dim, place, length) for place, tap in enumerate(TAPS))  # type: ignore[assignment]
    return image


def mean_with_interval(values: Iterable[float] | Tensor) -> tuple[float, float, float]:
    """(mean, low, high): the 95 % interval of the mean, as `Mean` computes it."""
    return Mean().add(values).interval()


@dataclass
class Mean:
    """A mean over pictures that come in batches, without keeping them: count, mean and sum of squared deviations."""

    count: int = 0
    mean: float = 0.0
    scatter: float = 0.0

    def add(self, values: Iterable[float] | Tensor) -> Mean:
        """Takes in one number per picture; the same result in any batches, up to rounding."""
        given = values.detach().cpu() if isinstance(values, Tensor) else torch.tensor(list(values), dtype=torch.float64)
        new = given.double().flatten()
        if not len(new):
            return self
        centre = new.mean()
        return self.merge(Mean(len(new), centre.item(), (new - centre).square().sum().item()))

    def merge(self, other: Mean) -> Mean:
        """Takes in another mean, such as another rank's (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        if other.count:
            apart = other.mean - self.mean
            self.scatter += other.scatter + apart * apart * self.count * other.count / count
            self.mean += apart * other.count / count
            self.count = count
        return self

    def interval(self) -> tuple[float, float, float]:
        """(mean, low, high): mean -+ Student's quantile * deviation / sqrt(count). It says how far another draw of as many pictures
        would lie, not another training. One picture has no interval (low and high are nan); none is a DataError."""
        if not self.count:
            raise DataError("There is no picture to measure.")
        if self.count == 1:
            return self.mean, math.nan, math.nan
        reach = student_95(self.count - 1) * math.sqrt(self.scatter / (self.count - 1) / self.count)
        return self.mean, self.mean - reach, self.mean + reach


def _as_saved(image: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1] in steps of 1/255, float32."""
    return to_uint8(image).float() / 255


def student_95(freedom: int) -> float:
    """Quantile 0.975 of Student's t: a table for 1 to 3, then an expansion (Abramowitz and Stegun 26.7.5), right to 0.3 %."""
    if freedom <= 3:
        return (12.7062, 4.3027, 3.1824)[freedom - 1]
    z, n = NORMAL_95, freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3
