"""Scores overlapping patches instead of the whole picture (Isola et al., arXiv:1611.07004, section 3.2.2)."""

import math
from typing import Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.errors import PluginError


class PatchGAN(nn.Module):
    class Config(PluginConfig):
        widths: list[PositiveInt] = Field(
            [64, 128, 256], min_length=1, description="channels of the convolutions of stride 2; one of stride 1 follows"
        )
        norm: Literal["group", "batch", "none"] = Field(
            "group", description="normalisation after every convolution but the first and last; group: up to 32 groups"
        )

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.smallest = 2 ** (len(config.widths) + 1)
        layers: list[nn.Module] = []
        for before, width in zip([image_channels, *config.widths], config.widths, strict=False):
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), *(_norm(config.norm, width) if layers else []), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(config.widths[-1], 1, 4, padding=1))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0, 0.02)  # ibid., section 6.2
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image [B,C,H,W] -> one map of logits [B,1,*,*]; a PluginError if the picture is too small for one patch."""
        height, width = image.shape[-2:]
        if min(height, width) < self.smallest:
            needed = f"{self.smallest}x{self.smallest}"
            raise PluginError(
                f"The discriminator 'patchgan' needs pictures of at least {needed} and got {height}x{width}: give it fewer widths."
            )
        return [self.layers(image)]


def _norm(kind: str, width: int) -> list[nn.Module]:
    return {"group": [nn.GroupNorm(math.gcd(32, width), width)], "batch": [nn.BatchNorm2d(width)], "none": []}[kind]
