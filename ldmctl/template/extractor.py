"""Colours and edges at a few places of a picture: features without a network, which see composition and miss objects."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.config import PluginConfig


class Template(nn.Module):
    """Mean colour and mean size of the differences of neighbours, at `grid` x `grid` places."""

    class Config(PluginConfig):
        grid: PositiveInt = Field(4, description="places on a side")

    def __init__(self, config: Config, *, image_channels: int, size: int, classes: Sequence[str] = (), encoder: Any = None):
        super().__init__()
        self.grid = config.grid

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B,C,size,size] -> features [B,D] float32."""
        seen = image.float() / 127.5 - 1
        across, down = seen.diff(dim=3).abs(), seen.diff(dim=2).abs()
        return torch.cat([F.adaptive_avg_pool2d(each, self.grid).flatten(1) for each in (seen, across, down)], 1)
