"""Residual blocks and the resamplings between resolutions. Parameter names are those of diffusers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(width: int, groups: int, eps: float) -> nn.GroupNorm:
    """A GroupNorm of gcd(groups, width) groups, so that any width has one."""
    return nn.GroupNorm(math.gcd(groups, width), width, eps=eps)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel (arXiv:1607.06450) with a weight per channel: no pixel depends on another."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[B,width,H,W] -> the same shape, each pixel's channels with mean 0 and variance 1, times their weights."""
        return F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, eps=self.eps).movedim(-1, 1)


def map_norm(width: int, groups: int | None, eps: float) -> nn.Module:
    """A GroupNorm, whose statistics are those of a whole map, or without `groups` a ChannelNorm."""
    return ChannelNorm(width, eps) if groups is None else group_norm(width, groups, eps)


class ResnetBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a shortcut; with `time_width` an embedding of the time is added between them."""

    def __init__(
        self, in_width: int, width: int, *, time_width: int = 0, norm_groups: int | None = 32, eps: float = 1e-6, dropout: float = 0.0
    ):
        super().__init__()
        self.norm1 = map_norm(in_width, norm_groups, eps)
        self.conv1 = nn.Conv2d(in_width, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, width) if time_width else None
        self.norm2 = map_norm(width, norm_groups, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_width, width, 1) if in_width != width else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x [B,in_width,H,W] and time [B,time_width] -> [B,width,H,W]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            assert time is not None
            hidden = hidden + self.time_emb_proj(F.silu(time))[:, :, None, None]
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """Halves a map by a 3x3 convolution of stride 2. `centred` pads all sides (U-Nets); otherwise right and bottom only (autoencoders).

    With `shortcut` the means of 2x2 pixels are added (arXiv:2410.10733).
    """

    def __init__(self, width: int, *, centred: bool = True, shortcut: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1 if centred else 0)
        self.centred = centred
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,H/2,W/2]; odd sizes are rounded up when centred and down otherwise."""
        halved = self.conv(x if self.centred else F.pad(x, (0, 1, 0, 1)))
        return halved + F.avg_pool2d(x, 2, ceil_mode=self.centred) if self.shortcut else halved


class Upsample(nn.Module):
    """Repeats pixels up to a size, then convolves 3x3; with `shortcut` the repeated pixels are added (arXiv:2410.10733)."""

    def __init__(self, width: int, *, shortcut: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = shortcut

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """[B,C,h,w] -> [B,C,*size], by default [B,C,2h,2w]. Give the size of the skip that it meets: 4x4 goes back to 7x7."""
        repeated = F.interpolate(x, size=size or (2 * x.shape[-2], 2 * x.shape[-1]), mode="nearest")
        return self.conv(repeated) + repeated if self.shortcut else self.conv(repeated)
