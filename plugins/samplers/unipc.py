"""UniPC: a step by the polynomial in ln(sigma) through the last clean latents, then put right by the one found at its end (arXiv:2302.04867).

That next clean latent is needed for the following step anyway, so the correction costs no evaluation. Its variant bh2, B(h) = 1 - e^-h;
of second order and without the correction it is DPM-Solver++ (2M). The last steps are of lower order.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor

from ldmctl.config import PluginConfig


class UniPC:
    """One evaluation a step, second or third order."""

    class Config(PluginConfig):
        order: int = Field(2, ge=1, le=3, description="clean latents that a step looks at")
        corrected: bool = Field(True, description="false leaves out the correction")

    def __init__(self, config: Config):
        self.order, self.corrected = config.order, config.corrected

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        known: list[tuple[float, Tensor]] = []  # levels and clean latents that the last step looked at, the newest first
        before = x
        for left, (sigma, sigma_next) in zip(range(len(sigmas) - 1, 0, -1), pairwise(sigmas), strict=True):
            high, low = sigma.item(), sigma_next.item()
            clean = denoise(x, sigma)
            if low == 0:
                return clean
            if known and self.corrected:
                x = unified(before, known, high, ahead=clean)
            known = [(high, clean), *known][: min(self.order, left)]
            before, x = x, unified(x, known, low)
        return x


def unified(x: Tensor, known: Sequence[tuple[float, Tensor]], low: float, *, ahead: Tensor | None = None) -> Tensor:
    """x at the level `low`, from x at the newest of the `known` levels; with `ahead`, the clean latent at `low`, corrected (eq. 3 and 8)."""
    high, clean = known[0]
    h = math.log(high / low)
    others = [(math.log(high / level) / h, other) for level, other in known[1:]] + ([] if ahead is None else [(1.0, ahead)])
    x = clean + (x - clean) * (low / high)
    for (place, other), weight in zip(others, weights([place for place, _ in others], h), strict=True):
        x = x + (other - clean) * (weight * -math.expm1(-h) / place)
    return x


def weights(places: Sequence[float], h: float) -> list[float]:
    """The solution of sum_m places_m^(k-1) weight_m = k! phi_(k+1) h / B for k = 1, 2, ...; one alone is 1/2 (appendix F)."""
    if len(places) < 2:
        return [0.5] * len(places)
    rows, wanted, moment = [], [], math.expm1(-h)
    for k in range(1, len(places) + 1):
        rows.append([place ** (k - 1) for place in places])
        moment = moment / -h - 1 / math.factorial(k)
        wanted.append(math.factorial(k) * moment / math.expm1(-h))
    return torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64)).tolist()
