"""PNG files: grids of pictures, and text entries that say how a picture was made."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin

from ldmctl.pictures.opening import BROKEN
from ldmctl.pictures.pillow import array_of
from ldmctl.storage.leftovers import unfinished

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]
GAP = 2  # pixels between the pictures of a grid


def grid(images: Tensor, columns: int | None = None) -> Tensor:
    """`tiled` of tensors."""
    return images.cpu().new_tensor(tiled(array_of(images), columns))


def tiled(images: Array, columns: int | None = None) -> Array:
    """uint8 [B,C,H,W] -> uint8 [C,H',W'], row by row, 2 px of white (clear with 4 channels) between; about square by default."""
    count, channels, height, width = images.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    down, right = height + GAP, width + GAP
    canvas = np.full((channels, rows * down - GAP, columns * right - GAP), 0 if channels == 4 else 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * down, i % columns * right
        canvas[:, top : top + height, left : left + width] = image
    return canvas


def write_png(path: str | Path, image: Tensor | Array, text: dict[str, str] | None = None) -> None:
    """Write uint8 [C,H,W] with text entries, all or nothing; the same arguments give the same bytes."""
    path = Path(path)
    array = array_of(image)
    info = PngImagePlugin.PngInfo()
    for key, value in sorted((text or {}).items()):
        info.add_text(key, value)  # tEXt, or iTXt where Latin-1 is not enough
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = unfinished(path, "part")
    try:
        Image.fromarray(np.ascontiguousarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))).save(partial, "PNG", pnginfo=info)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_png_text(path: str | Path, *, sides: tuple[int, int] | None = None) -> dict[str, str]:
    """The text entries of a PNG that decodes to its end; none for anything else, and for one of other `sides`, (height, width)."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if sides is not None and image.size != sides[::-1]:
                return {}
            return {key: str(value) for key, value in image.text.items()}  # type: ignore[attr-defined]
    except BROKEN:
        return {}
