"""DPM-Solver++ (2S) to below the next level, then fresh noise up to it (arXiv:2211.01095, alg. 1; ancestral as in k-diffusion).

A step looks a second time halfway in ln(sigma), and goes all the way with what it finds there.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.blocks import fresh_noise
from ldmctl.config import PluginConfig


class DPMpp2SAncestral:
    """Two evaluations a step, second order, with fresh noise in each."""

    class Config(PluginConfig):
        eta: float = Field(1.0, ge=0, le=1, description="share of fresh noise: 0 is DPM-Solver++ (2S), 1 as much as DDPM adds")

    def __init__(self, config: Config):
        self.eta = config.eta

    def evaluations(self, steps: int) -> int:
        """The last step has no second look, since it ends where all is clean."""
        return 2 * steps - 1

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        for sigma, sigma_next in pairwise(sigmas):
            high = sigma.item()
            down, up = fresh_noise(high, sigma_next.item(), self.eta)
            clean = denoise(x, sigma)
            if down > 0:
                middle = math.sqrt(high * down)
                halfway = clean + (x - clean) * (middle / high)
                clean = denoise(halfway, sigma.new_tensor(middle))
            x = clean + (x - clean) * (down / high)
            if up > 0:
                x = x + noise(sigma, sigma_next) * up
        return x
