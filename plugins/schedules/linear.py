"""The schedule of DDPM: noise added in T steps of rising variance beta (arXiv:2006.11239).

The T betas give a table of alpha-bar, the product of (1 - beta), at t = i/T. In
between, its logarithm is interpolated, so any time may be asked for.
"""

import torch
from pydantic import Field

from ldmctl.blocks import BetaTable
from ldmctl.config import PluginConfig


class Linear:
    """Betas that rise linearly."""

    class Config(PluginConfig):
        beta_start: float = Field(1e-4, gt=0, lt=1, description="variance of the first step")
        beta_end: float = Field(0.02, gt=0, lt=1, description="variance of the last step")
        timesteps: int = Field(1000, ge=2, description="how many steps, T")
        zero_terminal: bool = Field(
            False, description="whether the last step is made pure noise, which a prediction of v, x0 or flow can learn (arXiv:2305.08891)"
        )

    def __init__(self, config: Config):
        betas = torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)
        self.table = BetaTable(betas, zero_terminal=config.zero_terminal)
        self.timesteps, self.marginal, self.timestep = config.timesteps, self.table.marginal, self.table.timestep
