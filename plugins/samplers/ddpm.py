"""DDPM: ancestral sampling, each step a draw from q(x_next | x, clean) (arXiv:2006.11239).

In coordinates x / alpha noise is only ever added, x = x_next + sqrt(sigma^2 - sigma_next^2) noise,
so both moments of that draw are functions of the two levels alone (eq. 6 and 7).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor

from ldmctl.config import PluginConfig


class DDPM:
    """Many small steps with fresh noise in each."""

    class Config(PluginConfig):
        variance: Literal["small", "large"] = Field(
            "small", description="of the fresh noise; small: exact for one known picture, large (beta): exact for unit normal data"
        )

    def __init__(self, config: Config):
        self.variance = _small if config.variance == "small" else _large

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        for sigma, sigma_next in pairwise(sigmas):
            clean = denoise(x, sigma)
            high, low = sigma.item(), sigma_next.item()
            x = clean + (x - clean) * (low / high) ** 2
            if low > 0:
                x = x + noise(sigma, sigma_next) * math.sqrt(self.variance(high, low))
        return x


def _small(high: float, low: float) -> float:
    """Variance of x_next given x and the clean latent."""
    return low**2 * (1 - (low / high) ** 2)


def _large(high: float, low: float) -> float:
    """Variance of x_next given x where clean latents are standard normal: beta of the paper over alpha_next^2."""
    return (1 + low**2) * (high**2 - low**2) / (1 + high**2)
