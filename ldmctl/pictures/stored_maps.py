"""Maps as they are stored: the numbers that they hold, whether these count classes, and how a map lies on its picture. Needs no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldmctl.errors import DataError
from ldmctl.pictures.modes import SCALES, rawmode
from ldmctl.pictures.opening import BROKEN, MOST, decode, in_words, limits, opened, refuse_huge
from ldmctl.pictures.pillow import TURNS, Settings, array_of, size_of

UNLABELLED = 255  # in a label map: belongs to no class
MANY = 64  # numbers in one map from which it is rather one of grey
APART = 16  # and how far they lie apart on average: grey levels do, numbers of classes do not


@dataclass(frozen=True)
class Frame:
    """How the pixels of a picture lie in its file, and where they come to lie."""

    size: tuple[int, int]  # width and height as stored
    turn: int = 1  # EXIF orientation
    decoded: tuple[int, int] | None = None  # width and height as a JPEG is decoded, smaller than stored

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as it is seen."""
        return self.size[::-1] if self.turn >= 5 else self.size

    def resized(self, short: int) -> tuple[int, int]:
        """Width and height as it is seen, with a shorter side of `short` pixels, as `images.resize` rounds them."""
        size = self.decoded or self.size
        width, height = size[::-1] if self.turn >= 5 else size
        return max(short, round(width * short / min(size))), max(short, round(height * short / min(size)))


def frame_of(picture: Any, settings: Settings | None) -> Frame:
    """The frame of a picture in memory or as Pillow opened it. Nothing is decoded, but by `settings` a JPEG is told to come smaller, as `images.load` does."""
    size = size_of(picture)
    if not isinstance(picture, Image.Image):
        return Frame(size)
    turn = turn_of(picture)
    if picture.format == "TIFF" and turn >= 5:  # Pillow names the size of a TIFF as it is seen
        size = size[::-1]
    if settings is None or picture.format == "TIFF":
        return Frame(size, turn)
    picture.draft(None, (2 * settings.size, 2 * settings.size))
    return Frame(size, turn, picture.size)


def turn_of(image: Any, *, decoded: bool = False) -> int:
    """The EXIF orientation, 1 where there is none; with `decoded` that of its pixels, which in a TIFF have been turned by then."""
    if not isinstance(image, Image.Image) or (decoded and image.format == "TIFF"):
        return 1
    try:
        turn = image.getexif().get(0x0112, 1)
    except BROKEN:
        return 1
    return turn if turn in TURNS else 1


def numbers(given: Any, *, labels: bool, most: int = MOST) -> np.ndarray[Any, Any]:
    """uint8 [K,H,W] of a map as it is stored, palettes and small bit depths as the numbers they are where it holds labels; DataError if unusable."""
    given = opened(given) if isinstance(given, str | Path) else given
    name = name_of_map(given)
    if not isinstance(given, Image.Image):
        array = array_of(given)
        array = array[None] if array.ndim == 2 else array
        if array.dtype == bool:
            array = array.astype(np.uint8) * (1 if labels else 255)
        if array.dtype != np.uint8 or array.ndim != 3 or not len(array):
            raise DataError(f"{name} must be a Pillow image, uint8 [H,W] or uint8 [K,H,W], not {array.dtype} {list(array.shape)}.")
    else:
        refuse_huge(name, given.size, most)
        if labels and given.format == "JPEG":
            raise DataError(f"{name} is a JPEG, which blurs numbers of classes at every edge. Save label maps as PNG.")
        raw = rawmode(given)
        try:
            with limits(most):
                image = decode(given, most)
        except BROKEN as error:
            raise DataError(f"{name} cannot be decoded: {in_words(error)}") from None
        array = _indices(image, raw, name) if labels else _values(image, name)
    if labels and len(array) != 1:
        raise DataError(
            f"{name} has {len(array)} channels, and a label map one. Save it with a palette or in grey, each pixel the number of its class."
        )
    return np.ascontiguousarray(array)


def hold_labels(maps: Iterable[Any]) -> bool:
    """Whether such maps, as they are stored, hold numbers of classes: one channel, few in each, and small. Black and white is a continuous map."""
    found: set[int] = set()
    for each in maps:
        if (here := classes_in(each)) is None:
            return False
        found |= here
    return are_classes(found)


def classes_in(given: Any) -> set[int] | None:
    """The numbers in a map that may be those of classes; None where they are not: in several channels, many in one map, or in a JPEG."""
    given = opened(given) if isinstance(given, str | Path) else given
    if not may_hold_labels(given) or len(array := numbers(given, labels=isinstance(given, Image.Image))) != 1:
        return None
    here = set(np.unique(array).tolist())
    return here if len(here - {UNLABELLED}) <= MANY else None


def doubt(maps: Sequence[Any]) -> str:
    """A sentence on a few maps without which all others hold numbers of classes, or on JPEGs that may have held some; otherwise nothing."""
    found = [classes_in(each) for each in maps]
    known = {number for here in found if here is not None for number in here} - {UNLABELLED}
    if None not in found and are_classes(known):
        return ""
    while known and not are_classes(known):
        known.remove(max(known))
    odd = [place for place, here in enumerate(found) if here is None or here - known - {UNLABELLED}]
    if known and 4 * len(odd) <= len(found) and len(found) - len(odd) > 1:
        here = found[odd[0]]
        why = f"holds {max(here - known - {UNLABELLED})}" if here is not None else "holds levels, or is a JPEG or in colour"
        many = f"{len(odd)} of them do not" if odd[1:] else "one does not"
        return (
            f"Of the first {len(found)} maps all hold numbers of classes but {many}: {name_of_map(maps[odd[0]])} {why}. So all are read as shades. Mend "
            "it, or name the classes in classes.txt, if they are meant as classes."
        )
    dark = [each for each in maps if isinstance(each, Image.Image) and each.format == "JPEG" and each.mode == "L"]
    if len(dark) == len(maps) > 0 and max(int(np.asarray(each).max()) for each in dark) < MANY:
        return (
            "All maps are JPEGs and nearly black, so they are read as shades. Where they are meant as numbers of classes, save them as PNG."
        )
    return ""


def may_hold_labels(given: Any) -> bool:
    """Whether a map may hold numbers of classes by what is known before it is decoded."""
    return not isinstance(given, Image.Image) or (given.mode in ("P", "L", "I;16", "I") and given.format != "JPEG")


def are_classes(found: set[int]) -> bool:
    """Whether the numbers of all maps together count classes: at least two, and close together."""
    known = found - {UNLABELLED}
    return len(known) >= 2 and max(known) < APART * len(known)


def name_of_map(given: Any) -> str:
    """The map in a sentence."""
    return f"The map {file}" if (file := getattr(given, "filename", "")) else "A map"


# -- shapes ------------------------------------------------------------------


def turn_for(given: Any, size: tuple[int, int], frame: Frame, name: str = "") -> int:
    """The EXIF orientation by which a map of this size comes to lie on its picture; DataError where it has another shape."""
    own = turn_of(given, decoded=True)
    if own == 1 and _fits(size, frame.size):
        return frame.turn
    size = size[::-1] if own >= 5 else size
    if _fits(size, frame.upright):
        return own
    width, height = frame.upright
    raise DataError(
        f"{name_of_map(given)} is {size[0]}x{size[1]} pixels and its picture {name + ' ' if name else ''}{width}x{height}: "
        "another shape. A map may be smaller or larger than its picture, but covers all of it."
    )


def _fits(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have one shape, up to a pixel of the smaller."""
    small, large = sorted((size, other))
    return abs(small[0] - small[1] * large[0] / large[1]) <= 1 or abs(small[1] - small[0] * large[1] / large[0]) <= 1


# -- numbers -----------------------------------------------------------------


def _indices(image: Image.Image, raw: str, name: str) -> np.ndarray[Any, Any]:
    """uint8 [1,H,W], the numbers of classes; DataError where there are none."""
    if image.mode in ("P", "L"):
        array = np.asarray(image)
        return (array // SCALES[raw] if image.mode == "L" and raw in SCALES else array)[None]  # Pillow spreads 2 and 4 bits over 8
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)[None]
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[None, ..., 0]
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _narrow(image, name)
    what = "fractions" if image.mode == "F" else "colours"
    raise DataError(
        f"{name} is in mode {image.mode}, so its pixels are {what} and no numbers of classes. Save it with a palette or in grey, "
        "each pixel the number of its class."
    )


def _values(image: Image.Image, name: str) -> np.ndarray[Any, Any]:
    """uint8 [1 or 3,H,W], what is seen; DataError where it has more than 8 bits."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _narrow(image, name)
    if image.mode == "F":
        raise DataError(f"{name} holds fractions (mode F). Save it with 8 bits, 0 to 255.")
    grey = image.mode in ("1", "L", "LA", "La")
    array = np.asarray(image.convert("L" if grey else "RGB"))
    return array[None] if grey else array.transpose(2, 0, 1)


def _narrow(image: Image.Image, name: str) -> np.ndarray[Any, Any]:
    """uint8 [1,H,W] of 16 or 32 bits that hold no more than 8."""
    array = np.asarray(image)
    if array.size and (array.min() < 0 or array.max() > 255):
        raise DataError(
            f"{name} has 16 bits and numbers from {array.min()} to {array.max()}; those of a map are 0 to 255. Save it with 8 bits."
        )
    return array.astype(np.uint8)[None]
