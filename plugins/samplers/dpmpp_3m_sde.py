"""DPM-Solver++ (3M) for the stochastic equation: the clean latent goes on in ln(sigma) as a parabola through the last three.

The exponential integrator of arXiv:2211.01095 to third order, as k-diffusion has it, with noise replaced in each step. A step that is more
than twice as long as the last one begins anew, of first order: so far out a parabola says nothing.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.blocks import phi_2
from ldmctl.config import PluginConfig

LONGER = 2.0  # times the last step, in ln(sigma)


class DPMpp3MSDE:
    """One evaluation a step, third order, with fresh noise in each."""

    class Config(PluginConfig):
        eta: float = Field(1.0, ge=0, description="how much noise is replaced: 0 none, 1 as the reversed diffusion does")

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
        known: list[tuple[Tensor, float]] = []  # clean latents of earlier steps, with how long these were in ln(sigma), the last one first
        for sigma, sigma_next in pairwise(sigmas):
            clean = denoise(x, sigma)
            if sigma_next == 0:
                return clean
            h = math.log(sigma.item() / sigma_next.item())
            whole = (1 + self.eta) * h
            second = phi_2(whole)
            x = clean + (x - clean) * math.exp(-whole)
            if known and h <= LONGER * known[0][1]:
                before, h_before = known[0]
                slope = (clean - before) * (h / h_before)  # the change of the clean latent in a step like this one
                if len(known) > 1:
                    older, h_older = known[1]
                    bend = (slope - (before - older) * (h / h_older)) * (h / (h_before + h_older))
                    x = x - bend * (second / whole - 0.5)  # phi_3
                    slope = slope + bend * (h_before / h)
                x = x + slope * second
            if self.eta:
                x = x + noise(sigma, sigma_next) * (sigma_next.item() * math.sqrt(-math.expm1(-2 * self.eta * h)))
            known = [(clean, h), *known][:2]
        return x
