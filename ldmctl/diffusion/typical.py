"""A forward of latents as most in training are, by which arithmetic and memory are foretold."""

from collections.abc import Callable
from typing import Any

import torch

from ldmctl.diffusion.network import Network
from ldmctl.latents.conditions import Captions, Several, on_device

TYPICAL = 0.95  # of the captions, how many are no longer than the one that is taken


def forward_of(network: Network, latent: tuple[int, ...], known: Several) -> Callable[[], Any]:
    """A call of the network, where it is, with one latent; its caption is longer than most."""
    device = next(network.parameters()).device
    one, given = torch.zeros(1, *latent, device=device), typical(known, 1, device)
    return lambda: network(one, one.new_zeros(1), given)


def typical(known: Several, count: int, device: torch.device) -> dict[str, Any]:
    """What a network is given of so many items of which all is known that is known of any."""
    items = torch.full((count,), item_of(known, TYPICAL))
    return {"label": torch.zeros(count, dtype=torch.long, device=device), **on_device(known.known(items), device)}


def item_of(known: Several, share: float) -> int:
    """An item whose caption is no shorter than this share of all; 1: than any."""
    text = known.sources.get("text")
    return text.longer_than(share) if isinstance(text, Captions) else 0
