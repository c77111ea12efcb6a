"""What is known of pictures, as a denoiser hears it: one condition of the labels, words, maps and pictures of a batch.

Four slots, one for each thing that may be known; each has a conditioner of its own or none. Vectors and maps join their channels,
tokens follow each other. What is not known of an item, or is left out of a step, is heard as the conditioner's null, which is one and
the same in training and in sampling.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ldmctl.attribution import expect, expect_shape
from ldmctl.diffusion.denoise import joined
from ldmctl.errors import ConfigError
from ldmctl.latents.conditions import Known
from ldmctl.protocols import Condition

SLOTS = ("label", "text", "map", "picture")


def heard(slot: str, conditioner: Any, given: Any, dropped: Tensor | None, like: Tensor | None) -> Condition:
    """What one conditioner says of a batch, its null where nothing is known or `dropped` bool [B]."""
    value, there = given if isinstance(given, Known) else (given, None)
    if value is None:
        expect(like is not None, conditioner, f"nothing is given in the slot {slot}")
        assert like is not None
        return null_of(conditioner, len(like), like)
    full: Condition = value if isinstance(value, Condition) else conditioner.encode(value)
    left = dropped if there is None else ~there if dropped is None else dropped | ~there
    if left is None:
        return full
    count = len(left)
    both = joined(full, null_of(conditioner, count, full.maps if full.maps is not None else like))
    rows = torch.arange(count, device=left.device) + count * left
    return Condition(*(None if part is None else part[rows] for part in both))


def null_of(conditioner: Any, count: int, like: Tensor | None = None) -> Condition:
    """The null condition of so many pictures; its maps are as large as `like` [B,c,h,w]."""
    if getattr(conditioner, "map_channels", 0) and like is not None and getattr(conditioner, "listens", "label") != "label":
        null: Condition = conditioner.null(count, size=tuple(like.shape[-2:]))
        return null
    null = conditioner.null(count)
    return null


def merged(parts: Sequence[Condition]) -> Condition | None:
    """One condition of several: the numbers of all vectors, their tokens one after the other, the channels of all maps; None of none.

    A denoiser's first layer adds what it makes of each vector.
    """
    if len(parts) < 2:
        return parts[0] if parts else None
    vectors = [part.vector for part in parts if part.vector is not None]
    tokens = [(part.tokens, part.mask) for part in parts if part.tokens is not None]
    maps = [part.maps for part in parts if part.maps is not None]
    masks = [mask if mask is not None else torch.ones(each.shape[:2], dtype=torch.bool, device=each.device) for each, mask in tokens]
    masked = any(mask is not None for _, mask in tokens)
    return Condition(
        torch.cat(vectors, dim=1) if vectors else None,
        torch.cat([each for each, _ in tokens], dim=1) if tokens else None,
        torch.cat(masks, dim=1) if masked else None,
        torch.cat(maps, dim=1) if maps else None,
    )


def sizes_of(conditioners: Mapping[str, Any]) -> dict[str, int]:
    """What a denoiser is told of the conditions to come; a ConfigError where the tokens of two slots cannot follow each other."""
    sizes = {name: {slot: size for slot, each in conditioners.items() if (size := getattr(each, name, 0))} for name in SIZES}
    if len(set((said := sizes["token_dim"]).values())) > 1:
        raise ConfigError(
            "Tokens follow each other, so they must be equally long, and here they are "
            f"{' and '.join(f'{size} (conditions.{slot})' for slot, size in said.items())}."
        )
    return {name: max(each.values(), default=0) if name == "token_dim" else sum(each.values()) for name, each in sizes.items()}


SIZES = ("vector_dim", "token_dim", "map_channels")


def refuse_other_slot(slot: str, conditioner: Any) -> None:
    """A ConfigError for a conditioner, or a class of them, that listens to something else than its slot has."""
    listens = getattr(conditioner, "listens", "label")
    if listens != slot:
        kind = (conditioner if isinstance(conditioner, type) else type(conditioner)).__name__.lower()
        raise ConfigError(
            f"{kind} listens to {LISTENS.get(listens, listens)}, so it belongs to conditions.{listens}, not to conditions.{slot}."
        )


def painter_of(network: Any) -> Any:
    """The conditioner of a network that hears a part of the latents themselves, with masks that it draws; None without one."""
    picture = getattr(network, "picture", None)
    return picture if getattr(picture, "wants", None) == "latent" else None


LISTENS = {"label": "labels", "text": "captions", "map": "maps", "picture": "pictures"}


@torch.no_grad()
def try_conditioner(conditioner: Any, classes: int) -> None:
    """What would only be noticed in the first step: a conditioner that does not take labels, or gives what it has not announced."""
    labels = torch.arange(-1, min(classes, 3))
    learning = conditioner.training
    conditioner.eval()
    check_condition(conditioner.encode(labels), conditioner, len(labels), "encode")
    check_condition(conditioner.null(len(labels)), conditioner, len(labels), "null")
    conditioner.train(learning)


def check_condition(condition: Any, conditioner: Any, count: int, method: str) -> None:
    """A PluginError that names the conditioner, unless it gave for `count` pictures what it has announced."""
    expect(isinstance(condition, Condition), conditioner, f"{method} gave {type(condition).__name__}, not a Condition")
    for name, size in {"vector": "vector_dim", "tokens": "token_dim", "maps": "map_channels"}.items():
        part, announced = getattr(condition, name), getattr(conditioner, size)
        expect(
            (part is not None) == bool(announced), conditioner, f"{method} gave {'no ' * (part is None)}{name}, and {size} is {announced}"
        )
        if part is not None:
            wanted = {"vector": (count, announced), "tokens": (count, None, announced), "maps": (count, announced, None, None)}[name]
            expect_shape(part, wanted, conditioner, f"{method} ({name})")
