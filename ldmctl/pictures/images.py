"""Pictures as people store them, turned into the one form that models see.

At rest a picture is uint8 [C,H,W], in a model float32 in [-1, 1]. `prepare` is
all that is the same each time (orientation, channels, size), `finish` all that
chance decides (crop, flip), so the first may be kept and the second repeated.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from ldmctl.pictures.opening import opened
from ldmctl.pictures.pillow import TURNS, Facts, Settings, load, ready, resize, rgb

__all__ = ["TURNS", "load", "opened", "prepare", "read", "resize", "rgb", "to_float", "to_uint8"]


def read(path: str | Path, *, channels: int = 3, background: str = "white") -> Tensor:
    """uint8 [C,H,W] of a picture file, at its own size."""
    return to_tensor(load(opened(path), channels=channels, background=background))


def prepare(picture: Any, settings: Settings) -> Tensor:
    """uint8 [C,h,w], shorter side `size`; center-cropped to [C,size,size] unless the crop is random. DataError if unusable."""
    return prepare_noting(picture, settings)[0]


def prepare_noting(picture: Any, settings: Settings) -> tuple[Tensor, Facts]:
    """What `prepare` gives, and what was found on the way."""
    image, facts = ready(picture, settings)
    return to_tensor(image), facts


def finish(prepared: Tensor, settings: Settings, generator: Generator | None) -> Tensor:
    """uint8 [C,size,size], of a smaller `patch` [C,patch,patch]: random crop, patch and flip; with no generator the center, whole and not flipped.

    Three numbers are drawn whatever the settings, so that randomness stays aligned, and two more for a patch.
    """
    if generator is None:
        return _center(prepared, settings.size).contiguous()
    down, right, coin = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    image = _part(prepared, settings.size, down, right) if settings.crop == "random" else _center(prepared, settings.size)
    patch = getattr(settings, "patch", None)
    if patch is not None and patch < settings.size:
        image = _part(image, patch, *torch.rand(2, generator=generator, dtype=torch.float64).tolist())
    return (image.flip(-1) if settings.flip and coin < 0.5 else image).contiguous()


def to_tensor(image: Image.Image) -> Tensor:
    """uint8 [C,H,W] of a Pillow image in mode L, RGB or RGBA."""
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def _part(array: Tensor, side: int, down: float, right: float) -> Tensor:
    """The square of this side that lies this far down and to the right, of 0 to 1."""
    top, left = int(down * (array.shape[1] - side + 1)), int(right * (array.shape[2] - side + 1))
    return array[:, top : top + side, left : left + side]


def _center(array: Tensor, size: int) -> Tensor:
    top, left = (array.shape[1] - size) // 2, (array.shape[2] - size) // 2
    return array[:, top : top + size, left : left + size]


# -- in models ---------------------------------------------------------------


def to_float(image: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], same shape."""
    return image.to(torch.float32) / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """float in [-1, 1] -> uint8, rounded and clamped; undoes `to_float` exactly."""
    return ((image.detach().to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pad_to(image: Tensor, factor: int) -> Tensor:
    """[B,C,H,W] with its last row and column repeated until H and W are multiples of `factor`."""
    down, right = -image.shape[-2] % factor, -image.shape[-1] % factor
    return torch.nn.functional.pad(image, (0, right, 0, down), mode="replicate") if down or right else image


def crop_to(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[B,C,H,W] -> its first `size` = (height, width) rows and columns: undoes `pad_to`."""
    return image[..., : size[0], : size[1]]
