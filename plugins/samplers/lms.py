"""Linear multistep: the slope (x - clean) / sigma goes on as the polynomial in sigma through those of the last steps.

Its integral is exact, a step of Adams and Bashforth with steps of any length (arXiv:2206.00364 calls it LMS after k-diffusion).
"""

from collections.abc import Callable
from itertools import pairwise

from pydantic import Field
from torch import Tensor

from ldmctl.blocks import level_integrals
from ldmctl.config import PluginConfig


class LMS:
    """One evaluation a step, up to fourth order."""

    class Config(PluginConfig):
        order: int = Field(4, ge=1, le=4, description="slopes that a step looks at; 1 is Euler's method")

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
        slopes: list[Tensor] = []
        nodes: list[float] = []
        for sigma, sigma_next in pairwise(sigmas):
            high, low = sigma.item(), sigma_next.item()
            clean = denoise(x, sigma)
            slopes, nodes = [(x - clean) / high, *slopes][: self.order], [high, *nodes][: self.order]
            x = clean + slopes[0] * low  # Euler's step, to which older slopes add what they differ by
            for weight, slope in zip(level_integrals(nodes, low)[1:], slopes[1:], strict=True):
                x = x + (slope - slopes[0]) * weight
        return x
