"""What happens at one resolution: the steps of an encoder, a decoder and a U-Net. Parameter names are those of diffusers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldmctl.blocks.attention import Attention
from ldmctl.blocks.resnet import Downsample, ResnetBlock, Upsample


class DownBlock(nn.Module):
    """Residual blocks, each followed by self-attention where `heads` is given, then a halving unless it is the last level."""

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        layers: int,
        last: bool,
        heads: int = 0,
        time_width: int = 0,
        norm_groups: int = 32,
        eps: float = 1e-6,
        dropout: float = 0.0,
        centred: bool = True,
    ):
        super().__init__()
        widths = [in_width] + [width] * (layers - 1)
        self.resnets = nn.ModuleList(
            ResnetBlock(each, width, time_width=time_width, norm_groups=norm_groups, eps=eps, dropout=dropout) for each in widths
        )
        self.attentions = nn.ModuleList(Attention(width, heads=heads, norm_groups=norm_groups, eps=eps) for _ in widths if heads)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width, centred=centred)])

    def forward(self, x: Tensor, time: Tensor | None = None) -> list[Tensor]:
        """The map after every layer, the last of them for the next level; all of them are a U-Net's skips."""
        maps = []
        for number, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if self.attentions:
                x = self.attentions[number](x)
            maps.append(x)
        return maps + [downsample(x) for downsample in self.downsamplers]


class MidBlock(nn.Module):
    """Two residual blocks at the smallest map, with self-attention between them where `heads` is given."""

    def __init__(self, width: int, *, heads: int = 1, time_width: int = 0, norm_groups: int = 32, eps: float = 1e-6, dropout: float = 0.0):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, heads=heads, norm_groups=norm_groups, eps=eps)] if heads else [])
        self.resnets = nn.ModuleList(
            ResnetBlock(width, width, time_width=time_width, norm_groups=norm_groups, eps=eps, dropout=dropout) for _ in range(2)
        )

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """[B,width,h,w] -> [B,width,h,w]."""
        x = self.resnets[0](x, time)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, time)


class UpBlock(nn.Module):
    """Residual blocks, one for each of `in_widths`, then a doubling unless it is the last level."""

    def __init__(
        self,
        in_widths: Sequence[int],
        width: int,
        *,
        last: bool,
        heads: int = 0,
        time_width: int = 0,
        norm_groups: int = 32,
        eps: float = 1e-6,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(each, width, time_width=time_width, norm_groups=norm_groups, eps=eps, dropout=dropout) for each in in_widths
        )
        self.attentions = nn.ModuleList(Attention(width, heads=heads, norm_groups=norm_groups, eps=eps) for _ in in_widths if heads)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(width)])

    def forward(self, x: Tensor, skips: Sequence[Tensor] = (), time: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """[B,*,h,w] -> [B,width,*size], by default twice the size; `skips`, when given, are joined one to each block, the last first."""
        for number, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips[-1 - number]], dim=1) if skips else x, time)
            if self.attentions:
                x = self.attentions[number](x)
        for upsample in self.upsamplers:
            x = upsample(x, size)
        return x
