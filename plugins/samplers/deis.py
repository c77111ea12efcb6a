"""DEIS: the noise (x - clean) / sigma goes on as the polynomial in ln(sigma) through those of the last steps (arXiv:2204.13902, tAB).

The integral over sigma of that polynomial is exact. The last step, down to where all is clean, is of first order.
"""

from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.blocks import log_level_integrals
from ldmctl.config import PluginConfig


class DEIS:
    """One evaluation a step, up to third order."""

    class Config(PluginConfig):
        order: int = Field(2, ge=1, le=3, description="evaluations that a step looks at; 1 is Euler's method")

    def __init__(self, config: Config):
        self.order = config.order

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        found: list[Tensor] = []
        nodes: list[float] = []
        for left, (sigma, sigma_next) in zip(range(len(sigmas) - 1, 0, -1), pairwise(sigmas), strict=True):
            high, low = sigma.item(), sigma_next.item()
            clean = denoise(x, sigma)
            found, nodes = [(x - clean) / high, *found][: self.order], [high, *nodes][: self.order]
            x = clean + found[0] * low  # Euler's step, to which older noise adds what it differs by
            if left > 1:
                for weight, older in zip(log_level_integrals(nodes, low)[1:], found[1:], strict=True):
                    x = x + (older - found[0]) * weight
        return x
