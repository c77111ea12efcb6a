"""What happens at one resolution: the steps of an encoder, a decoder and a U-Net. Parameter names are those of diffusers.

With `checkpointing = True` on an instance, a block keeps nothing for the
backward but its inputs, and is computed a second time there (Chen et al.,
arXiv:1604.06174): the same numbers for less memory and about a third more time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldmctl.blocks.attention import Attention
from ldmctl.blocks.resnet import Downsample, ResnetBlock, Upsample


class DownBlock(nn.Module):
    """Residual blocks, each followed by self-attention where `heads` is given, then a halving unless it is the last level."""

    checkpointing = False

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
        return run_block(self, self._maps, x, time)

    def _maps(self, x: Tensor, time: Tensor | None) -> list[Tensor]:
        maps = []
        for number, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if self.attentions:
                x = self.attentions[number](x)
            maps.append(x)
        return maps + [downsample(x) for downsample in self.downsamplers]


class MidBlock(nn.Module):
    """Two residual blocks at the smallest map, with self-attention between them where `heads` is given."""

    checkpointing = False

    def __init__(self, width: int, *, heads: int = 1, time_width: int = 0, norm_groups: int = 32, eps: float = 1e-6, dropout: float = 0.0):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, heads=heads, norm_groups=norm_groups, eps=eps)] if heads else [])
        self.resnets = nn.ModuleList(
            ResnetBlock(width, width, time_width=time_width, norm_groups=norm_groups, eps=eps, dropout=dropout) for _ in range(2)
        )

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """[B,width,h,w] -> [B,width,h,w]."""
        return run_block(self, self._map, x, time)

    def _map(self, x: Tensor, time: Tensor | None) -> Tensor:
        x = self.resnets[0](x, time)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, time)


class UpBlock(nn.Module):
    """Residual blocks, one for each of `in_widths`, then a doubling unless it is the last level."""

    checkpointing = False

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
        return run_block(self, self._map, x, time, size, *skips)

    def _map(self, x: Tensor, time: Tensor | None, size: tuple[int, int] | None, *skips: Tensor) -> Tensor:
        for number, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips[-1 - number]], dim=1) if skips else x, time)
            if self.attentions:
                x = self.attentions[number](x)
        for upsample in self.upsamplers:
            x = upsample(x, size)
        return x


def run_block(block: Any, forward: Callable[..., Any], *inputs: Any) -> Any:
    """`forward(*inputs)`, again in the backward where the block asks for it. Tensors stand in `inputs` themselves, so that they count as kept."""
    if not (block.checkpointing and torch.is_grad_enabled()):
        return forward(*inputs)
    random = block.training and any(isinstance(part, nn.Dropout) and part.p > 0 for part in block.modules())
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=random)
