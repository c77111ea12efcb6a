"""Heun's method in ln(sigma): a step that holds on to the clean latent, and a second look from where it led (as in arXiv:2206.00364, alg. 1).

Between both looks the clean latent is taken to move evenly in ln(sigma), which is of second order and stays within what they saw however
far the step goes. The mean of two slopes dx/dsigma has no such limit: out of pure noise, whose level stands for infinity, it would end far
outside of the data.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.blocks import phi_2
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
            x = clean + (x - clean) * (low / high)
            if self.corrected and low > 0:
                x = x + (denoise(x, sigma_next) - clean) * phi_2(math.log(high / low))
        return x
