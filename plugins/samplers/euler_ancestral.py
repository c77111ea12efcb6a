"""Euler's step to below the next level, then fresh noise up to it. It is DDIM with eta 1, under the name that people know it by."""

from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.blocks import fresh_noise
from ldmctl.config import PluginConfig


class EulerAncestral:
    """One evaluation a step, first order, with fresh noise in each."""

    class Config(PluginConfig):
        eta: float = Field(1.0, ge=0, le=1, description="share of fresh noise: 0 is Euler's method, 1 as much as DDPM adds")

    def __init__(self, config: Config):
        self.eta = config.eta

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        for sigma, sigma_next in pairwise(sigmas):
            high, low = sigma.item(), sigma_next.item()
            down, up = fresh_noise(high, low, self.eta)
            clean = denoise(x, sigma)
            x = clean + (x - clean) * (down / high)
            if up > 0:
                x = x + noise(sigma, sigma_next) * up
        return x
