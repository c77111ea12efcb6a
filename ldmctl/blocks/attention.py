"""Self-attention between the pixels of a map. Parameter names are those of diffusers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.blocks.resnet import map_norm


class Attention(nn.Module):
    """Normalises a map, lets its pixels attend to each other and adds the result to it."""

    def __init__(self, width: int, *, heads: int = 1, norm_groups: int | None = 32, eps: float = 1e-6):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}.")
        self.heads = heads
        self.group_norm = map_norm(width, norm_groups, eps)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,H,W]."""
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)
        query, key, value = (self._split(layer(pixels)) for layer in (self.to_q, self.to_k, self.to_v))
        mixed = attend(query, key, value).transpose(1, 2).flatten(2)
        return x + self.to_out[0](mixed).transpose(1, 2).reshape(x.shape)

    def _split(self, pixels: Tensor) -> Tensor:
        """[B,N,C] -> [B,heads,N,C/heads]."""
        return pixels.unflatten(2, (self.heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, query [B,heads,L,D] and twice [B,heads,N,D] -> [B,heads,L,D].

    mask bool [B,N] is True where a key counts, and at least one in each row is.
    """
    bias = None if mask is None else _bias(mask)
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias if bias is None else bias.to(query.dtype))
    with torch.autocast("cpu", enabled=False):  # float32, because bfloat16 measured 2 to 5 times slower at 49 tokens and no faster at 256
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=bias).to(query.dtype)


def _bias(mask: Tensor) -> Tensor:
    """bool [B,N] -> float32 [B,1,1,N], what is added to logits: 0 where a key counts, else minus infinity."""
    # cut from longer rows: between convolutions torch.compile takes the strides of a dense map for constants, though N changes (2.14)
    longer = F.pad(mask, (0, 1))
    return torch.zeros(longer.shape, device=mask.device).masked_fill(~longer, -math.inf)[:, None, None, :-1]
