"""A caption as one vector."""

from torch import Tensor


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean [B,D] of those tokens [B,N,D] that count, mask bool [B,N], in float32; padding is no part of it."""
    counted = mask[:, :, None]
    return (tokens.float() * counted).sum(1) / counted.sum(1).clamp_min(1)
