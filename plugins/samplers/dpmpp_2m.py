"""DPM-Solver++ (2M): the clean latent goes on in ln(sigma) as it did in the last step (arXiv:2211.01095, alg. 2)."""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from ldmctl.config import PluginConfig


class DPMpp2M:
    """One evaluation a step, second order."""

    class Config(PluginConfig):
        pass

    def __init__(self, config: Config):
        pass

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        before, h_before = None, 0.0
        for sigma, sigma_next in pairwise(sigmas):
            high, low = sigma.item(), sigma_next.item()
            h = math.log(high / low) if low > 0 else math.inf
            clean = ahead = denoise(x, sigma)
            if before is not None and low > 0:
                ahead = clean + (clean - before) * (h / (2 * h_before))  # where it will be in the middle of the step
            x = ahead + (x - ahead) * (low / high)
            before, h_before = clean, h
        return x
