"""The two halves of a convolutional autoencoder. Parameter names and arithmetic are those of diffusers' AutoencoderKL.

With `shortcuts` a path without a norm leads through each half: residual blocks have one anyway, halvings and doublings get that of DC-AE
(Chen et al., arXiv:2410.10733), and a 1x1 convolution goes around the last norm. What it carries, such as how bright a pixel is, need not
be learnt through the norms.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.blocks.levels import DownBlock, MidBlock, UpBlock
from ldmctl.blocks.resnet import map_norm


class Encoder(nn.Module):
    """Pictures to maps 2 ** (len(widths) - 1) times smaller. GroupNorms have gcd(norm_groups, *widths) groups; with None each pixel is normalised alone."""

    def __init__(
        self,
        image_channels: int,
        widths: Sequence[int],
        channels: int,
        *,
        layers: int = 2,
        norm_groups: int | None = 32,
        attention: bool = True,
        shortcuts: bool = False,
    ):
        super().__init__()
        groups = None if norm_groups is None else math.gcd(norm_groups, *widths)
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(image_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[max(level - 1, 0)], width, layers=layers, last=level == last, norm_groups=groups, centred=False, shortcut=shortcuts
            )
            for level, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], heads=1 if attention else 0, norm_groups=groups)
        self.conv_norm_out = map_norm(widths[-1], groups, 1e-6)
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.shortcut = nn.Conv2d(widths[-1], channels, 1) if shortcuts else None

    def forward(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] -> [B,channels,h,w]."""
        x = self.conv_in(image)
        for block in self.down_blocks:
            x = block(x)[-1]
        x = self.mid_block(x)
        out = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out if self.shortcut is None else out + self.shortcut(x)


class Decoder(nn.Module):
    """Latents to pictures 2 ** (len(widths) - 1) times larger; `widths` as in the encoder, and one residual block more per level."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        image_channels: int,
        *,
        layers: int = 2,
        norm_groups: int | None = 32,
        attention: bool = True,
        shortcuts: bool = False,
    ):
        super().__init__()
        groups = None if norm_groups is None else math.gcd(norm_groups, *widths)
        last = len(widths) - 1
        upwards = list(reversed(widths))
        self.conv_in = nn.Conv2d(channels, upwards[0], 3, padding=1)
        self.mid_block = MidBlock(upwards[0], heads=1 if attention else 0, norm_groups=groups)
        self.up_blocks = nn.ModuleList(
            UpBlock([upwards[max(level - 1, 0)]] + [width] * layers, width, last=level == last, norm_groups=groups, shortcut=shortcuts)
            for level, width in enumerate(upwards)
        )
        self.conv_norm_out = map_norm(upwards[-1], groups, 1e-6)
        self.conv_out = nn.Conv2d(upwards[-1], image_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(upwards[-1], image_channels, 1) if shortcuts else None

    def forward(self, latent: Tensor) -> Tensor:
        """latent [B,channels,h,w] -> [B,C,H,W]."""
        x = self.mid_block(self.conv_in(latent))
        for block in self.up_blocks:
            x = block(x)
        out = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out if self.shortcut is None else out + self.shortcut(x)
