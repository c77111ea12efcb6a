"""A small denoiser: residual blocks at one resolution, each of which is told the time, and the class beside it.

A denoiser whose blocks work on tokens may also have `forward_with_hidden`, `depth` and `grid` (see ldmctl.protocols.Denoiser), by which
a loss can compare its tokens with those of another network. This one has none, and is trained without.
"""

import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.blocks import ResnetBlock, TimestepEmbedding, group_norm
from ldmctl.config import PluginConfig
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition


class Template(nn.Module):
    """Convolutions that keep the size of the latent."""

    class Config(PluginConfig):
        width: PositiveInt = Field(64, description="channels of every block")
        layers: PositiveInt = Field(4, description="residual blocks")

    def __init__(
        self, config: Config, *, channels: int, size: tuple[int, int], vector_dim: int = 0, token_dim: int = 0, map_channels: int = 0
    ):
        super().__init__()
        if token_dim or map_channels:
            raise PluginError(
                "This denoiser listens to vectors, not to tokens or maps: choose another conditioner and no self_conditioning, or another denoiser."
            )
        time_width = 4 * config.width
        self.time_embedding = TimestepEmbedding(config.width, time_width)
        self.vector_embedding = nn.Linear(vector_dim, time_width) if vector_dim else None
        self.conv_in = nn.Conv2d(channels, config.width, 3, padding=1)
        self.blocks = nn.ModuleList(ResnetBlock(config.width, config.width, time_width=time_width) for _ in range(config.layers))
        self.norm = group_norm(config.width, 32, 1e-5)
        self.conv_out = nn.Conv2d(config.width, channels, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition | None = None) -> Tensor:
        """x [B,c,h,w] and timestep [B], as the schedule gives it -> prediction [B,c,h,w]."""
        time = self.time_embedding(timestep)
        if self.vector_embedding is not None and condition is not None and condition.vector is not None:
            time = time + self.vector_embedding(condition.vector)
        hidden = self.conv_in(x)
        for block in self.blocks:
            hidden = block(hidden, time)
        return self.conv_out(F.silu(self.norm(hidden)))
