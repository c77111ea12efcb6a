"""EDM: levels that the deviation of noise alone names, log-normal in training, even in sigma^(1/rho) in sampling (arXiv:2206.00364).

Latents here have deviation 1, and with that its preconditioning is a prediction of v: c_in = alpha, c_skip = alpha^2, c_out = sigma of
x_t = alpha x_0 + sigma noise at alpha = 1 / sqrt(1 + level^2), and its loss weight 1 / c_out^2 is the plain loss of v. So `edm` with
`prediction: v` is EDM; its published levels 0.002 to 80 and e^-1.2, all for data of deviation 0.5, are twice as high here. Networks are
told 1000 t, which rises with the level as its c_noise does, over the range that embeddings of time are made for.
"""

import torch
from pydantic import Field
from torch import Tensor

from ldmctl.config import PluginConfig


class EDM:
    """sigma / alpha from near 0 to 160, in continuous time."""

    class Config(PluginConfig):
        lowest: float = Field(0.004, gt=0, lt=0.05, description="level sigma / alpha at t = 0")
        highest: float = Field(160.0, gt=5, description="level at t = 1")
        rho: float = Field(7.0, gt=0, description="the higher, the more of time lies near data")
        mean: float = Field(-0.5, description="P_mean, of ln(level) in training; -1.2 + ln 2")
        deviation: float = Field(1.2, gt=0, description="P_std, of ln(level) in training")

    def __init__(self, config: Config):
        self.config = config
        self.low, self.high = config.lowest ** (1 / config.rho), config.highest ** (1 / config.rho)

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha [B] and sigma [B] at t [B], with alpha^2 + sigma^2 = 1."""
        level = torch.lerp(t.new_tensor(self.low), t.new_tensor(self.high), t) ** self.config.rho
        alpha = torch.rsqrt(1 + level**2)
        return alpha, level * alpha

    def training_time(self, u: Tensor) -> Tensor:
        """The times t [B] of levels whose logarithms are normal, from uniform u [B]; those beyond both ends are trained there."""
        level = torch.exp(self.config.mean + self.config.deviation * torch.special.ndtri(u))
        root = level.clamp(self.config.lowest, self.config.highest) ** (1 / self.config.rho)
        return ((root - self.low) / (self.high - self.low)).clamp(0, 1)
