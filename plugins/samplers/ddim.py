"""DDIM: denoise, then put back the noise that the next level asks for (arXiv:2010.02502).

With `eta` 0 all of it is the noise that was just found, which is Euler's step along
dx/dsigma = (x - clean) / sigma. With `eta` above 0 a part of it is drawn afresh.
"""

from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.blocks import fresh_noise
from ldmctl.config import PluginConfig


class DDIM:
    """Eq. 12 of the paper in coordinates x / alpha."""

    class Config(PluginConfig):
        eta: float = Field(0.0, ge=0, le=1, description="share of fresh noise: 0 is deterministic, 1 adds as much as DDPM")

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
            clean = denoise(x, sigma)
            high, low = sigma.item(), sigma_next.item()
            found, fresh = fresh_noise(high, low, self.eta)  # eq. 16
            x = clean + (x - clean) * (found / high)
            if fresh > 0:
                x = x + noise(sigma, sigma_next) * fresh
        return x
