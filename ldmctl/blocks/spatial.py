"""A transformer on the pixels of a map, which listens to tokens: what a U-Net has in place of plain attention when it is told words.

As in latent diffusion (Rombach et al., arXiv:2112.10752, section 3.3). Parameter names and arithmetic are those of diffusers'
Transformer2DModel with `use_linear_projection=True`. Weights made with convolutions there are the same after `weight[:, :, 0, 0]`.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.blocks.attention import attend
from ldmctl.blocks.resnet import map_norm

EPS = 1e-6  # of the GroupNorm; that of the LayerNorms is torch's
WIDER = 4  # the hidden layer of the feed-forward, times the width


class SpatialTransformer(nn.Module):
    """Pixels of a map attend to each other, then to tokens, then go through an MLP each; the result is added to the map."""

    def __init__(self, width: int, *, heads: int, token_dim: int, norm_groups: int | None = 32):
        super().__init__()
        self.norm = map_norm(width, norm_groups, EPS)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([ListeningBlock(width, heads=heads, token_dim=token_dim)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B,C,H,W], tokens [B,N,token_dim], mask as in `attend` -> [B,C,H,W]."""
        pixels = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            pixels = block(pixels, tokens, mask)
        return x + self.proj_out(pixels).transpose(1, 2).reshape(x.shape)

    def ends(self) -> list[nn.Linear]:
        """The layers that each residual branch in it ends in."""
        blocks: Iterable[Any] = self.transformer_blocks
        return [self.proj_out, *(end for block in blocks for end in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]))]


class ListeningBlock(nn.Module):
    """Self-attention, cross-attention and an MLP, each behind a LayerNorm and added; diffusers' BasicTransformerBlock."""

    def __init__(self, width: int, *, heads: int, token_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = ProjectedAttention(width, width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = ProjectedAttention(width, token_dim, heads=heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, WIDER * width)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """pixels [B,L,width], tokens [B,N,token_dim] -> [B,L,width]."""
        normed = self.norm1(pixels)
        pixels = pixels + self.attn1(normed, normed)
        pixels = pixels + self.attn2(self.norm2(pixels), tokens, mask)
        return pixels + self.ff(self.norm3(pixels))


class ProjectedAttention(nn.Module):
    """Attention of some tokens [B,L,width] to others [B,N,heard_dim], without biases but that of the output."""

    def __init__(self, width: int, heard_dim: int, *, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}.")
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(heard_dim, width, bias=False)
        self.to_v = nn.Linear(heard_dim, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, tokens: Tensor, heard: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B,L,width] -> [B,L,width]."""
        # one product, of which both are cut, for the reason that a mask is in `attend`
        key, value = F.linear(heard, torch.cat([self.to_k.weight, self.to_v.weight])).chunk(2, dim=2)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(tokens), key, value))
        return self.to_out[0](attend(query, key, value, mask).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """An MLP whose hidden layer is a product of two, one of them through GELU (Shazeer, arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, hidden), nn.Identity(), nn.Linear(hidden, width)])  # diffusers drops at 1

    def forward(self, tokens: Tensor) -> Tensor:
        """[B,L,width] -> [B,L,width]."""
        for layer in self.net:
            tokens = layer(tokens)
        return tokens


class GEGLU(nn.Module):
    """A layer and its gate in one product."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B,L,width] -> [B,L,hidden]."""
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        return value * F.gelu(gate)
