"""A quarter of a circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2) (arXiv:2202.00512).

It is the cosine schedule of arXiv:2102.09672 in continuous time, without the offset and the clipped betas that steps needed.
"""

import math

import torch
from torch import Tensor

from ldmctl.config import PluginConfig


class Cosine:
    """Constant angular speed from data to pure noise, in continuous time."""

    class Config(PluginConfig):
        pass

    def __init__(self, config: Config):
        pass

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha [B] and sigma [B] at t [B], with alpha^2 + sigma^2 = 1."""
        # sin of the rest of the angle, since cos(pi / 2) is not exactly 0 in floating point
        return torch.sin((1 - t) * (math.pi / 2)), torch.sin(t * (math.pi / 2))
