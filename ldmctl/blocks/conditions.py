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


def refuse_tokens(denoiser: str, token_dim: int) -> None:
    """A PluginError when tokens would be given to a denoiser that does not take them."""
    if token_dim:
        raise PluginError(
            f"The denoiser '{denoiser}' takes vectors and maps, not tokens: choose a conditioner without tokens, or another denoiser."
        )
