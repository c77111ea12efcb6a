"""Every mode that Pillow opens, as 8 bits of grey, of colour, of either with alpha, or of ink.

What a file says of its numbers (where white is, which colour is transparent) must
be read before they are brought to 8 bits, because Pillow's own conversions clip or forget it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
SCALES = {"L;2": 85, "L;4": 17}  # rawmodes of a PNG whose transparent grey is told in as few bits
WHITE_IS_ZERO, PHOTOMETRIC, BITS, SAMPLES = 0, 262, 258, 277  # TIFF 6.0, section 8


@dataclass(frozen=True)
class Numbers:
    """What the numbers of a picture mean, as its file says."""

    white: float | None = None  # None: as usual for the mode
    inverted: bool = False  # white is 0, and Pillow has not turned it over
    clear: Any = None  # the transparent grey or colour at 8 bits (at 16 for 16-bit grey); None where there is none


def numbers_of(image: Image.Image) -> Numbers:
    """Read from an image that is not decoded yet."""
    raw = rawmode(image)
    tags = getattr(image, "tag_v2", None) or {}
    deep = image.mode in ("F", "I") or image.mode.startswith("I;")
    bits = tags.get(BITS, (16,))[0]
    white = float((1 << bits) - 1) if deep and image.mode != "F" and isinstance(bits, int) and 8 < bits < 16 else None
    inverted = deep and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and not raw.endswith(("I", "R"))
    return Numbers(white, inverted, _clear(image, raw))


def rawmode(image: Image.Image) -> str:
    """How the pixels lie in the file; '' where that is not known."""
    tile: Any = (getattr(image, "tile", None) or [(None,)])[0]
    arguments = tile[-1] if len(tile) > 3 else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def simple(image: Image.Image, numbers: Numbers) -> Image.Image:
    """The decoded image in mode 1, L, LA, RGB, RGBA or CMYK. ValueError when its numbers have no known white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _from_deep(image, numbers)
    if image.mode in ("La", "RGBa"):
        return image.convert(image.mode[:-1] + "A")
    if numbers.clear is not None and "transparency" in image.info and image.mode in ("L", "RGB"):
        image.info["transparency"] = numbers.clear
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    return image if image.mode in ("1", "L", "RGB", "CMYK", "LAB") else image.convert("RGB")


def _clear(image: Image.Image, raw: str) -> Any:
    clear = image.info.get("transparency")
    if isinstance(clear, int) and raw in SCALES:
        return clear * SCALES[raw]
    if isinstance(clear, tuple) and raw.startswith("RGB;16"):
        return tuple(value >> 8 for value in clear)  # as Pillow brings the pixels to 8 bits
    return clear if isinstance(clear, int | tuple) else None


def _from_deep(image: Image.Image, numbers: Numbers) -> Image.Image:
    """L, or LA where one grey is transparent, from 16-bit or float grey, scaled: Pillow's own conversion would clip it to white."""
    array = np.asarray(image).astype(np.float64)
    white = numbers.white or (1.0 if image.mode == "F" else 65535.0)
    if array.size and not (array.min() >= 0 and array.max() <= white):
        raise ValueError(f"values from {array.min():g} to {array.max():g} in mode {image.mode}, where 0 to {white:g} was expected")
    grey = (white - array if numbers.inverted else array) * (255 / white)
    found = Image.fromarray(grey.round().astype(np.uint8))
    if isinstance(numbers.clear, int):
        alpha = np.where(array == numbers.clear, 0, 255).astype(np.uint8)
        found = Image.merge("LA", (found, Image.fromarray(alpha)))
    return found
