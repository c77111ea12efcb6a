"""Steps that are halved until they are good enough, for each picture on its own.

A step of second order looks once more from where a step of first order led; how far the two are apart is what the first order errs by. Where
that is above the tolerance, the picture walks this part again in two steps, then in four, and so on (the pair of Lawson and Heun in ln(sigma)).
All pictures of a batch are evaluated together, and each keeps the first walk that is good enough for it, so its neighbours do not matter.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor

from ldmctl.blocks import phi_2
from ldmctl.config import PluginConfig

CLOSE = 10  # how much nearer to clean than the last level above 0 it stops, if the schedule goes so far: what comes then is no second look's to judge
FAR = 10  # high / low of a step that is never taken whole: the second look from its end may see nothing of what lies between


class Adaptive:
    """Two evaluations a step at least, second order, as many as it takes."""

    class Config(PluginConfig):
        tolerance: float = Field(0.02, gt=0, description="what a step may err by, relative to the deviation of noised latents at its end")
        halvings: int = Field(5, ge=0, description="how often a step is halved at most")

    def __init__(self, config: Config):
        self.tolerance, self.halvings = config.tolerance, config.halvings

    def evaluations(self, steps: int) -> None:
        """Nobody knows before: at least 2 steps - 1."""

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        *reached, end = sigmas
        last = end if end > 0 else torch.minimum(reached[-1], (reached[-1] / CLOSE).clamp(min=getattr(denoise, "lowest", 0.0)))
        for sigma, sigma_next in pairwise([*reached, *([last] if last < reached[-1] else [])]):
            found, open_ = x, torch.ones(len(x), dtype=torch.bool, device=x.device)
            parts = max(1, math.ceil(math.log(sigma / sigma_next, FAR) - 1e-9))
            for halving in range(self.halvings + 1):
                between = torch.logspace(math.log2(sigma), math.log2(sigma_next), parts * 2**halving + 1, base=2, dtype=torch.float64)
                between[0], between[-1] = sigma, sigma_next  # exactly: a first level a hair below is not pure noise
                walked, error = x, x.new_zeros(len(x))
                for high, low in pairwise(between):
                    walked, off = self._step(denoise, walked, high, low)
                    error = torch.maximum(error, off)
                found = torch.where(open_[:, None, None, None], walked, found)
                open_ = open_ & (error > self.tolerance)
                if not open_.any():
                    break
            x = found
        return x if end > 0 else denoise(x, last)

    def _step(self, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """(x at `low` to second order, how far the first order is off [B], relative to noised latents of deviation 1)."""
        clean = denoise(x, high)
        x = clean + (x - clean) * (low / high).item()
        change = (denoise(x, low) - clean) * phi_2(math.log(high / low))
        return x + change, change.square().flatten(1).mean(1).sqrt() / math.sqrt(1 + low.item() ** 2)
