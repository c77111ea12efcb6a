"""Heun's method along dx/dsigma = (x - clean) / sigma: a step, and a second look from where it led (arXiv:2206.00364, alg. 1).

The mean of both slopes moves x by (high - low) / (2 low) of what the second look changed, without a limit where a step goes far, as out of
pure noise. There the clean latent is taken to move evenly in ln(level) instead, so that the correction stays below that change.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from ldmctl.blocks import phi_2
from ldmctl.config import PluginConfig

FAR = 11  # high / low of a step that is too long for the mean of two slopes


class Heun:
    """Two evaluations a step, second order."""

    class Config(PluginConfig):
        pass

    def __init__(self, config: Config):
        pass

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
            high, low = sigma.item(), sigma_next.item()
            clean = denoise(x, sigma)
            x = clean + (x - clean) * (low / high)
            if low > 0:
                gain = (high - low) / (2 * low) if high <= FAR * low else phi_2(math.log(high / low))
                x = x + (denoise(x, sigma_next) - clean) * gain
        return x
