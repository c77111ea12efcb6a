"""DPM-Solver++ (2M) for the stochastic equation: each step also replaces some of the noise (arXiv:2211.01095, section 5).

With eta 0 nothing is drawn, and `midpoint` is DPM-Solver++ (2M).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor

from ldmctl.blocks import phi_2
from ldmctl.config import PluginConfig


class DPMpp2MSDE:
    """One evaluation a step, second order, with fresh noise in each."""

    class Config(PluginConfig):
        eta: float = Field(1.0, ge=0, description="how much noise is replaced: 0 none, 1 as the reversed diffusion does")
        solver: Literal["midpoint", "heun"] = Field(
            "midpoint", description="midpoint: the clean latent is as in the middle of a step, heun: it moves evenly along it"
        )

    def __init__(self, config: Config):
        self.eta, self.solver = config.eta, config.solver

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
            clean = denoise(x, sigma)
            if sigma_next == 0:
                return clean
            h = math.log(sigma.item() / sigma_next.item())
            whole = (1 + self.eta) * h
            moved = -math.expm1(-whole)  # how much of the way from x to the clean latent a step goes
            x = clean + (x - clean) * math.exp(-whole)
            if before is not None:
                x = x + (clean - before) * (h / h_before * (moved / 2 if self.solver == "midpoint" else phi_2(whole)))
            if self.eta:
                x = x + noise(sigma, sigma_next) * (sigma_next.item() * math.sqrt(-math.expm1(-2 * self.eta * h)))
            before, h_before = clean, h
        return x
