"""What happens at one resolution: the steps of an encoder, a decoder and a U-Net. Parameter names are those of diffusers.

With `checkpointing = True` on an instance, a block keeps nothing for the
backward but its inputs, and is computed a second time there (Chen et al.,
arXiv:1604.06174): the same numbers for less memory and about a third more time.

With `token_dim` attention listens to tokens as well: a block is then given tokens [B,N,token_dim] and their mask, as `heard_tokens`
makes them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldmctl.blocks.attention import Attention
from ldmctl.blocks.resnet import Downsample, ResnetBlock, Upsample
from ldmctl.blocks.spatial import SpatialTransformer


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
        norm_groups: int | None = 32,
        eps: float = 1e-6,
        dropout: float = 0.0,
        centred: bool = True,
        shortcut: bool = False,
        token_dim: int = 0,
    ):
        super().__init__()
        widths = [in_width] + [width] * (layers - 1)
        self.resnets = nn.ModuleList(
            ResnetBlock(each, width, time_width=time_width, norm_groups=norm_groups, eps=eps, dropout=dropout) for each in widths
        )
        self.attentions = nn.ModuleList(_attention(width, heads, norm_groups, eps, token_dim) for _ in widths if heads)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width, centred=centred, shortcut=shortcut)])

    def forward(self, x: Tensor, time: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None) -> list[Tensor]:
        """The map after every layer, the last of them for the next level; all of them are a U-Net's skips."""
        return run_block(self, self._maps, x, time, tokens, mask)

    def _maps(self, x: Tensor, time: Tensor | None, tokens: Tensor | None, mask: Tensor | None) -> list[Tensor]:
        maps = []
        for number, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if self.attentions:
                x = _attended(self.attentions[number], x, tokens, mask)
            maps.append(x)
        return maps + [downsample(x) for downsample in self.downsamplers]


class MidBlock(nn.Module):
    """Two residual blocks at the smallest map, with self-attention between them where `heads` is given."""

    checkpointing = False

    def __init__(
        self,
        width: int,
        *,
        heads: int = 1,
        time_width: int = 0,
        norm_groups: int | None = 32,
        eps: float = 1e-6,
        dropout: float = 0.0,
        token_dim: int = 0,
    ):
        super().__init__()
        self.attentions = nn.ModuleList([_attention(width, heads, norm_groups, eps, token_dim)] if heads else [])
        self.resnets = nn.ModuleList(
            ResnetBlock(width, width, time_width=time_width, norm_groups=norm_groups, eps=eps, dropout=dropout) for _ in range(2)
        )

    def forward(self, x: Tensor, time: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """[B,width,h,w] -> [B,width,h,w]."""
        return run_block(self, self._map, x, time, tokens, mask)

    def _map(self, x: Tensor, time: Tensor | None, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.resnets[0](x, time)
        for attention in self.attentions:
            x = _attended(attention, x, tokens, mask)
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
        norm_groups: int | None = 32,
        eps: float = 1e-6,
        dropout: float = 0.0,
        shortcut: bool = False,
        token_dim: int = 0,
    ):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(each, width, time_width=time_width, norm_groups=norm_groups, eps=eps, dropout=dropout) for each in in_widths
        )
        self.attentions = nn.ModuleList(_attention(width, heads, norm_groups, eps, token_dim) for _ in in_widths if heads)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(width, shortcut=shortcut)])

    def forward(
        self,
        x: Tensor,
        skips: Sequence[Tensor] = (),
        time: Tensor | None = None,
        size: tuple[int, int] | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """[B,*,h,w] -> [B,width,*size], by default twice the size; `skips`, when given, are joined one to each block, the last first."""
        return run_block(self, self._map, x, time, size, tokens, mask, *skips)

    def _map(
        self,
        x: Tensor,
        time: Tensor | None,
        size: tuple[int, int] | None,
        tokens: Tensor | None,
        mask: Tensor | None,
        *skips: Tensor,
    ) -> Tensor:
        for number, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips[-1 - number]], dim=1) if skips else x, time)
            if self.attentions:
                x = _attended(self.attentions[number], x, tokens, mask)
        for upsample in self.upsamplers:
            x = upsample(x, size)
        return x


def run_block(block: Any, forward: Callable[..., Any], *inputs: Any) -> Any:
    """`forward(*inputs)`, again in the backward where the block asks for it. Tensors stand in `inputs` themselves, so that they count as kept."""
    if not (block.checkpointing and torch.is_grad_enabled()):
        return forward(*inputs)
    random = block.training and any(isinstance(part, nn.Dropout) and part.p > 0 for part in block.modules())
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=random)


def _attention(width: int, heads: int, norm_groups: int | None, eps: float, token_dim: int) -> nn.Module:
    """Attention between the pixels, and to tokens where there are any."""
    if token_dim:
        return SpatialTransformer(width, heads=heads, token_dim=token_dim, norm_groups=norm_groups)
    return Attention(width, heads=heads, norm_groups=norm_groups, eps=eps)


def _attended(attention: nn.Module, x: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
    return attention(x) if tokens is None else attention(x, tokens, mask)
