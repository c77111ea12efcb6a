"""Pictures as people store them, turned into upright Pillow images of one mode and size: all of preparing them that needs no torch."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageColor

from ldmctl.errors import ConfigError, DataError
from ldmctl.pictures.colour import Unusable, lab_to_rgb, to_srgb
from ldmctl.pictures.modes import GREY, numbers_of, simple
from ldmctl.pictures.opening import BROKEN, MOST, decode, in_words, opened, refuse_huge
from ldmctl.pictures.tags import profile_of

__all__ = ["load", "opened", "ready", "resize", "rgb", "size_of"]

FILTER = Image.Resampling.LANCZOS  # antialiased: its support grows with the reduction
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
WIDEST = 16  # pictures longer than this many times their shorter side are not usable
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTED = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # what Pillow reads an orientation from


class Settings(Protocol):
    """How pictures are prepared; the `image` section of a config has this shape. Where `profile` or `max_pixels` is missing it has its default."""

    @property
    def size(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def crop(self) -> str: ...
    @property
    def flip(self) -> bool: ...
    @property
    def background(self) -> str: ...


class Facts(NamedTuple):
    """What is known of a picture once it is prepared."""

    size: tuple[int, int]  # width and height as stored, pixels
    profile: str = ""  # why its colour profile was not applied, '' where that was or there is none


def load(
    picture: Any, *, channels: int, background: str = "white", enough: int | None = None, profile: str = "srgb", max_pixels: int = MOST
) -> Image.Image:
    """Upright Pillow image in mode L, RGB or RGBA, of a Pillow image or uint8 [C,H,W]; DataError when it cannot be decoded.

    A JPEG may be decoded smaller when both sides stay at least twice `enough`. Colours are brought to sRGB
    by the picture's profile; with `profile="keep"` it is ignored.
    """
    return _load(picture, channels, background, enough, profile, max_pixels)[0]


def _load(picture: Any, channels: int, background: str, enough: int | None, profile: str, max_pixels: int) -> tuple[Image.Image, str]:
    """(the image, why its profile was not applied)."""
    colour = rgb(background)
    image = picture if isinstance(picture, Image.Image) else _from_array(picture)
    refuse_huge(_name(picture), image.size, max_pixels)
    try:
        numbers = numbers_of(image)
        given, why = profile_of(image) if profile == "srgb" else (None, "")
        if enough is not None:
            image.draft(None, (2 * enough, 2 * enough))
        image = decode(image, max_pixels)
        image, unused = _convert(simple(_upright(image), numbers), channels, colour, given, grey=image.mode in GREY)
        return _hide(image, colour), unused or why
    except BROKEN as error:
        raise DataError(f"{_name(picture)} cannot be decoded: {in_words(error)}") from None


def rgb(background: str) -> tuple[int, int, int]:
    """Red, green and blue of a Pillow colour name or hex, or ConfigError."""
    try:
        return ImageColor.getrgb(background)[:3]  # type: ignore[return-value]
    except ValueError:
        raise ConfigError(f"background {background!r} is not a colour; write a name such as white, or #rrggbb.") from None


def _from_array(picture: Any) -> Image.Image:
    array = array_of(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[0] not in (1, 2, 3, 4):
        raise DataError(f"A picture must be a Pillow image or uint8 [C,H,W] with 1 to 4 channels, not {array.dtype} {list(array.shape)}.")
    return Image.fromarray(np.ascontiguousarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)))


def array_of(picture: Any) -> np.ndarray[Any, Any]:
    """The numbers of a tensor, on whichever device, or of what NumPy takes."""
    return np.asarray(picture.cpu() if hasattr(picture, "cpu") else picture)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(image.getexif().get(0x0112, 1))
    except BROKEN:  # a broken EXIF or XMP block says nothing about the pixels
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    for told in ORIENTED:  # or whoever takes it up again would turn it once more
        turned.info.pop(told, None)
    return turned


def _convert(
    image: Image.Image, channels: int, colour: tuple[int, int, int], profile: bytes | None, *, grey: bool
) -> tuple[Image.Image, str]:
    """(L, RGB or RGBA over the background, why the profile was not applied) of an image in a simple mode."""
    unused = ""
    if image.mode == "LAB":
        image = lab_to_rgb(image)
    elif profile:
        try:
            image = to_srgb(image, profile, grey=grey)
        except Unusable as error:
            unused = str(error) or "it is damaged"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels != 4:
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*colour, 255)), image)
    elif image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert(MODES[channels]), unused


def _hide(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """The same image with the background's colour in its fully transparent pixels: what lies there is often rubbish."""
    if image.mode != "RGBA":
        return image
    array = np.array(image)
    array[array[..., 3] == 0, :3] = colour
    return Image.fromarray(array)


def _name(picture: Any) -> str:
    return str(getattr(picture, "filename", "") or "A picture")


# -- preparing ---------------------------------------------------------------


def resize(image: Image.Image, size: int) -> Image.Image:
    """The whole picture with its shorter side `size` pixels long, through Lanczos's antialiased filter."""
    short = min(image.size)
    width, height = (max(size, round(side * size / short)) for side in image.size)
    return image if image.size == (width, height) else image.resize((width, height), FILTER)


def ready(picture: Any, settings: Settings) -> tuple[Image.Image, Facts]:
    """(an image in mode L, RGB or RGBA, shorter side `size`, cut to the square of its center unless the crop is random; what was found on the way).

    DataError if unusable.
    """
    width, height = size_of(picture)
    if min(width, height) < 2 or max(width, height) > WIDEST * min(width, height):
        raise DataError(f"{_name(picture)} is {width}x{height} pixels: too small or too narrow (2 pixels and 1:{WIDEST} are the least).")
    profile, most = getattr(settings, "profile", "srgb"), getattr(settings, "max_pixels", MOST)
    image, unused = _load(picture, settings.channels, settings.background, settings.size, profile, most)
    image = _hide(resize(image, settings.size), rgb(settings.background))
    return _center(image, settings.size) if settings.crop == "center" else image, Facts((width, height), unused)


def size_of(picture: Any) -> tuple[int, int]:
    """(width, height) as stored, without decoding a picture that Pillow opened."""
    width, height = picture.size if isinstance(picture, Image.Image) else tuple(picture.shape)[:-3:-1]
    return int(width), int(height)


def _center(image: Image.Image, size: int) -> Image.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
