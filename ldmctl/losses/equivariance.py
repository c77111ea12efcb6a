"""Latents that turn and shrink with their picture, which denoisers learn more easily (EQ-VAE, arXiv:2502.09509).

The latent of some pictures is turned by quarters and scaled down, and decoded;
the distance to the picture, turned and scaled alike, is a penalty.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.pictures.images import crop_to
from ldmctl.protocols import Reconstruction

SMALLEST_SCALE = 0.25  # ibid., section 4: factors are drawn uniformly from [0.25, 1)


class Equivariant(nn.Module):
    """An autoencoder whose forward also says how far turned and scaled latents decode from turned and scaled pictures.

    The penalty is `weight` times the mean absolute or squared difference, over the first `share` of the batch, and in
    the reconstruction's penalties as `equivariance`. Numbers come from the global generator.
    """

    def __init__(self, autoencoder: Any, *, weight: float, share: float, squared: bool):
        super().__init__()
        self.autoencoder = autoencoder
        self.weight, self.share, self.squared = weight, share, squared

    def forward(self, image: Tensor) -> Reconstruction:
        """image [B,C,H,W], H and W multiples of the factor -> its reconstruction, with one penalty more."""
        reconstruction = self.autoencoder(image)
        some = image[: math.ceil(self.share * len(image))]
        latent = self.autoencoder.draw(self.autoencoder.encode(some))
        turned, wanted = changed(latent, some, factor=self.autoencoder.factor)
        gap = crop_to(self.autoencoder.decode(turned).float(), (wanted.shape[-2], wanted.shape[-1])) - wanted.float()
        distance = gap.square().mean() if self.squared else gap.abs().mean()
        return reconstruction._replace(penalties={**reconstruction.penalties, "equivariance": self.weight * distance})


def changed(latent: Tensor, image: Tensor, *, factor: int) -> tuple[Tensor, Tensor]:
    """(latent [B,c,h',w'], image [B,C,factor h',factor w']), turned by the same quarters and scaled down by the same factors, drawn for the whole batch."""
    quarters = int(torch.randint(4, ()))
    down, right = (SMALLEST_SCALE + (1 - SMALLEST_SCALE) * torch.rand(2)).tolist()
    height, width = max(1, round(latent.shape[2] * down)), max(1, round(latent.shape[3] * right))
    small = F.interpolate(latent.float(), (height, width), mode="bilinear", antialias=True)
    wanted = F.interpolate(image.float(), (factor * height, factor * width), mode="bilinear", antialias=True)
    return small.rot90(quarters, (2, 3)).to(latent.dtype), wanted.rot90(quarters, (2, 3))
