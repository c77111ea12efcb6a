"""Random changes that a discriminator sees of every picture, real and made alike: DiffAugment (Zhao et al., arXiv:2006.10738).

With few pictures a discriminator learns them by heart. Changes that can be
derived go between the picture and its judge, so the maker still learns from
the judgement, and nothing of them shows in what is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

Kind = Literal["colour", "translation", "cutout"]

LARGEST_MOVE = 8  # a picture moves by up to one part in so many of its side


def augment(image: Tensor, kinds: Sequence[Kind], generator: Generator | None = None) -> Tensor:
    """image [B,C,H,W] in [-1, 1] -> the same shape, each picture changed in its own way, in the order of `kinds`.

    Colour leaves [-1, 1]; what a move or a cutout uncovers is 0. The numbers come from where the generator lives, by default the image's device.
    """
    changes = {"colour": _colour, "translation": _translation, "cutout": _cutout}
    for kind in kinds:
        image = changes[kind](image, generator)
    return image


def _colour(image: Tensor, generator: Generator | None) -> Tensor:
    """Brightness by up to 0.5, saturation by a factor from 0 to 2, contrast by one from 0.5 to 1.5. Alpha stays, grey has no saturation."""
    colour, alpha = (image[:, :3], image[:, 3:]) if image.shape[1] == 4 else (image, image[:, :0])
    brightness, saturation, contrast = _uniform(image, generator, 3)
    colour = colour + (brightness - 0.5)
    if colour.shape[1] == 3:
        colour = _spread(colour, (1,), 2 * saturation)
    return torch.cat([_spread(colour, (1, 2, 3), 0.5 + contrast), alpha], dim=1)


def _spread(x: Tensor, over: tuple[int, ...], factor: Tensor) -> Tensor:
    """Distances from the mean over these dimensions, times a factor."""
    mean = x.mean(over, keepdim=True)
    return mean + factor * (x - mean)


def _translation(image: Tensor, generator: Generator | None) -> Tensor:
    """Moved by whole pixels, up to an eighth of each side."""
    rows, columns = (_index(image, side) for side in (2, 3))
    down, right = (_whole(image, generator, -(side // LARGEST_MOVE), side // LARGEST_MOVE) for side in image.shape[2:])
    rows, columns = rows - down, columns - right
    inside = _within(rows, image.shape[2]) & _within(columns, image.shape[3])
    found = rows.clamp(0, image.shape[2] - 1), columns.clamp(0, image.shape[3] - 1)
    return torch.where(inside, image[_index(image, 0), _index(image, 1), *found], 0.0)


def _cutout(image: Tensor, generator: Generator | None) -> Tensor:
    """Without a rectangle of half the sides, whose centre is anywhere in the picture."""
    kept = torch.zeros((), dtype=torch.bool, device=image.device)
    for dimension in (2, 3):
        side = image.shape[dimension]
        begin = _whole(image, generator, 0, side - 1) - side // 4
        kept = kept | ~_within(_index(image, dimension) - begin, side // 2)
    return torch.where(kept, image, 0.0)


# -- small parts -------------------------------------------------------------------


def _uniform(image: Tensor, generator: Generator | None, count: int) -> Tensor:
    """[count,B,1,1,1] in [0, 1)."""
    device = image.device if generator is None else generator.device
    return torch.rand(count, len(image), 1, 1, 1, generator=generator, device=device).to(image)


def _whole(image: Tensor, generator: Generator | None, lowest: int, highest: int) -> Tensor:
    """[B,1,1,1] whole numbers, both ends among them."""
    device = image.device if generator is None else generator.device
    return torch.randint(lowest, highest + 1, (len(image), 1, 1, 1), generator=generator, device=device).to(image.device)


def _index(image: Tensor, dimension: int) -> Tensor:
    """0, 1, 2, ... along one dimension, 1 wide in the others."""
    shape = [-1 if each == dimension else 1 for each in range(4)]
    return torch.arange(image.shape[dimension], device=image.device).view(shape)


def _within(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)
