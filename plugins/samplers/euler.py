"""Euler's method along dx/dsigma = (x - clean) / sigma, with noise stirred in before a step where asked (arXiv:2206.00364, alg. 2 of first order).

Without churn it is DDIM. With it each step first goes up to a higher level by fresh noise, and then down from there.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.config import PluginConfig


class Euler:
    """One evaluation a step, first order."""

    class Config(PluginConfig):
        churn: float = Field(0.0, ge=0, description="S_churn: how much noise is stirred in over the whole way, in steps' worth; 0: none")
        churn_from: float = Field(0.0, ge=0, description="S_tmin: the lowest level sigma / alpha at which it is")
        churn_to: float | None = Field(None, gt=0, description="S_tmax: the highest; null: no limit")
        churn_noise: float = Field(1.0, gt=0, description="S_noise: deviation of that noise; slightly above 1 makes up for lost detail")

    def __init__(self, config: Config):
        self.config = config

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        highest, top = sigmas[0].item(), self.config.churn_to or math.inf
        gain = 1 + min(self.config.churn / (len(sigmas) - 1), math.sqrt(2) - 1)
        for sigma, sigma_next in pairwise(sigmas):
            high, low = sigma.item(), sigma_next.item()
            stirred = min(high * gain, highest) if self.config.churn_from <= high <= top else high
            if stirred > high:
                added = math.sqrt(stirred**2 - high**2) * self.config.churn_noise
                x = x + noise(sigma, sigma.new_tensor(stirred)) * added
            clean = denoise(x, sigma.new_tensor(stirred))
            x = clean + (x - clean) * (low / stirred)
        return x
