"""What denoisers do alike with the conditions they are given."""

import torch
from torch import Tensor

from ldmctl.errors import PluginError
from ldmctl.protocols import Condition


def join_maps(x: Tensor, count: int, condition: Condition | None) -> Tensor:
    """x [B,c,h,w] -> [B,c+count,h,w] with the condition's maps behind it, zeros when they are missing; x itself when `count` is 0."""
    if not count:
        return x
    maps = None if condition is None else condition.maps
    return torch.cat([x, x.new_zeros(x.shape[0], count, *x.shape[2:]) if maps is None else maps.to(x.dtype)], dim=1)


def heard_tokens(x: Tensor, token_dim: int, condition: Condition | None) -> tuple[Tensor, Tensor | None]:
    """(tokens [B,N,token_dim] of x's dtype, 0 where they do not count; mask bool [B,N] for `attend`, None when all of them count).

    Where there is nothing to hear, in a row or at all, tokens of zeros are attended to, whose values are 0 in layers without bias:
    neither NaN nor any trace of what stands in the padding, and every weight takes part whatever the condition.
    """
    if condition is None or condition.tokens is None or not condition.tokens.shape[1]:
        return x.new_zeros(x.shape[0], 1, token_dim), None
    tokens, mask = condition.tokens.to(x.dtype), condition.mask
    if mask is None:
        return tokens, None
    return tokens.masked_fill(~mask[:, :, None], 0), mask | ~mask.any(dim=1, keepdim=True)


def refuse_tokens(denoiser: str, token_dim: int) -> None:
    """A PluginError when tokens would be given to a denoiser that does not take them."""
    if token_dim:
        raise PluginError(
            f"The denoiser '{denoiser}' takes vectors and maps, not tokens: choose a conditioner without tokens, or another denoiser."
        )
