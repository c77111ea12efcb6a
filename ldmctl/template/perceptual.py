"""Mean absolute difference of two pictures, sharp and blurred: large forms count as much as fine detail, and no weights are needed."""

import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.config import PluginConfig


class Template(nn.Module):
    """L1 at several scales, each half as large as the one before."""

    class Config(PluginConfig):
        scales: PositiveInt = Field(4, description="how many sizes are compared, the full one among them")

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.scales = config.scales

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """[B,C,H,W] twice, in [-1, 1] -> distance [B], 0 when equal; no gradient flows into `target`."""
        gap = image.float() - target.float().detach()
        distance = gap.abs().mean((1, 2, 3))
        for _ in range(self.scales - 1):
            gap = F.avg_pool2d(gap, 2, ceil_mode=True)  # blurring the difference is blurring both
            distance = distance + gap.abs().mean((1, 2, 3))
        return distance / self.scales
