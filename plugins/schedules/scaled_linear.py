"""The schedule of latent diffusion: square roots of the betas that rise linearly (arXiv:2112.10752).

Its name there is "linear", in diffusers "scaled_linear". The T betas give a table
of alpha-bar at t = i/T. In between, its logarithm is interpolated.
"""

import torch
from pydantic import Field

from ldmctl.blocks import BetaTable
from ldmctl.config import PluginConfig


class ScaledLinear:
    """Betas whose square roots rise linearly."""

    class Config(PluginConfig):
        beta_start: float = Field(0.00085, gt=0, lt=1, description="variance of the first step")
        beta_end: float = Field(0.012, gt=0, lt=1, description="variance of the last step")
        timesteps: int = Field(1000, ge=2, description="how many steps, T")
        zero_terminal: bool = Field(
            False, description="whether the last step is made pure noise, which a prediction of v, x0 or flow can learn (arXiv:2305.08891)"
        )

    def __init__(self, config: Config):
        betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.timesteps, dtype=torch.float64) ** 2
        self.table = BetaTable(betas, zero_terminal=config.zero_terminal)
        self.timesteps, self.marginal, self.timestep = config.timesteps, self.table.marginal, self.table.timestep
