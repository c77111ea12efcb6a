"""The schedule of DDPM: noise added in T steps of rising variance beta (arXiv:2006.11239).

The T betas give a table of alpha-bar, the product of (1 - beta), at t = i/T. In
between, its logarithm is interpolated, so any time may be asked for.
"""

import torch
from pydantic import Field
from torch import Tensor

from ldmctl.config import PluginConfig


class Linear:
    """Betas that rise linearly."""

    class Config(PluginConfig):
        beta_start: float = Field(1e-4, gt=0, lt=1, description="variance of the first step")
        beta_end: float = Field(0.02, gt=0, lt=1, description="variance of the last step")
        timesteps: int = Field(1000, ge=2, description="how many steps, T")

    def __init__(self, config: Config):
        self.timesteps = config.timesteps
        betas = torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)
        self.log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])  # [T+1], at t = i/T
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # the same, where and as it was asked for

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha [B] and sigma [B] at t [B], with alpha^2 + sigma^2 = 1."""
        if (where := (t.device, t.dtype)) not in self._tables:
            self._tables[where] = self.log_alpha_bar.to(t)  # once: a copy to a device waits for it
        table = self._tables[where]
        place = t * self.timesteps
        below = place.long().clamp(0, self.timesteps - 1)
        log_alpha_bar = torch.lerp(table[below], table[below + 1], place - below)
        return torch.exp(log_alpha_bar / 2), torch.sqrt(-torch.expm1(log_alpha_bar))

    def timestep(self, t: Tensor) -> Tensor:
        """The step, counted from 0, as the network is told: T t - 1."""
        return t * self.timesteps - 1
