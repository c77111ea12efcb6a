"""Heun's method along dx/dsigma = (x - clean) / sigma: a step, and a second look from where it led (arXiv:2206.00364, alg. 1)."""

from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.config import PluginConfig


class Template:
    """Deterministic: all noise comes with x."""

    class Config(PluginConfig):
        corrected: bool = Field(True, description="false leaves out the second look: Euler's step, half the evaluations")

    def __init__(self, config: Config):
        self.corrected = config.corrected

    def evaluations(self, steps: int) -> int:
        """How often `denoise` is called: the last step has no second look, since it ends where all is clean."""
        return 2 * steps - 1 if self.corrected else steps

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """x [B,c,h,w] at sigmas[0] -> the clean latent [B,c,h,w] at their end, 0."""
        for sigma, sigma_next in pairwise(sigmas):
            high, low = sigma.item(), sigma_next.item()
            clean = denoise(x, sigma)
            slope = (x - clean) / high
            ahead = clean + slope * low
            if self.corrected and low > 0:
                slope_ahead = (ahead - denoise(ahead, sigma_next)) / low
                ahead = x + (slope + slope_ahead) * ((low - high) / 2)
            x = ahead
        return x
