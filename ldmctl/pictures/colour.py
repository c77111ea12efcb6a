"""Colours by the profile that a picture carries, brought to sRGB: 255 in Display P3 is another red than in sRGB.

Transforms are made once per profile and process. A profile that is sRGB under
any name has none, so those pixels stay what they are.
"""

from functools import lru_cache
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

from ldmctl.pictures.opening import in_words

NEAR = 2  # of 255: profiles whose colours come out nearer than this are sRGB
NEAR_BY_NAME = 12  # the same for those that say they are: some sRGB profiles lift black a little
LEVELS = (0, 32, 64, 96, 128, 160, 192, 224, 255)
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of pixels, by a profile's colour space


class Unusable(ValueError):
    """A profile that is broken or of another kind of picture."""


def to_srgb(image: Image.Image, profile: bytes, *, grey: bool) -> Image.Image:
    """The same image in sRGB: 1 and L stay grey, CMYK becomes RGB, alpha is kept. Unusable when the profile cannot be applied.

    `grey`: a colour image whose three channels are one, since only so could it have alpha.
    """
    space, transform = transform_of(profile)
    mode = MODES[space]
    if image.mode == "1" or (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and not grey):
        if image.mode == "1":  # black and white are so in any profile
            return image
        raise Unusable(f"a profile of {space} in a picture of mode {image.mode}")
    if transform is None:
        return image
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    pixels = image.getchannel(0) if mode == "L" else image if mode == image.mode else image.convert("RGB")
    found = _applied(pixels, transform)
    if alpha is None:
        return found.convert("L") if image.mode == "L" else found
    found.putalpha(alpha)
    return found.convert("LA") if image.mode == "LA" else found


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """sRGB of an image in CIE L*a*b*, which Pillow does not convert by itself."""
    return _applied(image, _lab())


@lru_cache(maxsize=32)
def transform_of(profile: bytes) -> tuple[str, Any]:
    """(colour space, its transform to sRGB or None where it is sRGB); Unusable for what is no profile of pixels."""
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if space not in MODES:
            raise Unusable(f"a profile of {space}")
        transform = _to_srgb(opened, MODES[space])
        near = NEAR_BY_NAME if "srgb" in (opened.profile.profile_description or "").lower() else NEAR
        return space, None if space != "CMYK" and _changes(transform, MODES[space]) <= near else transform
    except (ImageCms.PyCMSError, OSError, TypeError, ImportError, UnicodeError) as error:
        raise Unusable("it is damaged" if "open profile" in str(error) else in_words(error)) from None


def _to_srgb(profile: Any, mode: str) -> Any:
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION  # so that the darkest ink becomes black
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)


def _changes(transform: Any, mode: str) -> int:
    """By how much a transform moves any of a grid of colours, or any grey, at most."""
    grid = Image.frombytes("L", (256, 1), bytes(range(256))).convert("RGB")
    if mode == "RGB":
        colours = bytes(value for red in LEVELS for green in LEVELS for blue in LEVELS for value in (red, green, blue))
        grid = Image.frombytes("RGB", (len(colours) // 3, 1), colours)
    moved = _applied(grid.convert(mode), transform)
    return max(abs(before - after) for before, after in zip(grid.tobytes(), moved.tobytes(), strict=True))


@lru_cache(maxsize=1)
def _lab() -> Any:
    return _to_srgb(ImageCms.createProfile("LAB"), "LAB")


def _applied(image: Image.Image, transform: Any) -> Image.Image:
    try:
        found: Any = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise Unusable(str(error)) from None
    found.info.pop("icc_profile", None)
    return found  # type: ignore[no-any-return]
