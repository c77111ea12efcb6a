"""The colour space of a picture by its profile, or by what stands in place of one.

A PNG may tell it in numbers: cICP (third edition of PNG, 11.3.2.6) before iCCP before sRGB before gAMA and cHRM. A camera writes
no profile into a JPEG in Adobe RGB but a word into its EXIF data (DCF 2.0): R03, with a colour space that is "uncalibrated".
"""

import struct
from typing import Any

from PIL import ExifTags, Image

from ldmctl.pictures import primaries
from ldmctl.pictures.modes import GREY
from ldmctl.pictures.opening import BROKEN
from ldmctl.pictures.primaries import ADOBE, BT709, BT2020, D65, P3, SRGB_CURVE, VIDEO_CURVE, Place

PRIMARIES = {1: BT709, 9: BT2020, 12: P3}  # of cICP, by their numbers in ITU-T H.273
VIDEO, SRGB = (1, 6, 14, 15), 13  # curves, by theirs
CURVES = {**dict.fromkeys(VIDEO, VIDEO_CURVE), SRGB: SRGB_CURVE, 4: (2.2,), 5: (2.8,), 8: (1.0,)}
HDR = {16: "PQ", 18: "HLG"}
ENCODING = 1 / 2.2  # the gAMA of sRGB
NEAR = 0.1  # shares by which a gAMA may differ from it: less is what careless programs write into pictures in sRGB
COLOUR_SPACE, ADOBE_RGB = 0xA001, (2, 0xFFFF)  # EXIF; 2 is what some cameras write
CHUNKS = 64  # of a PNG that are looked at


def profile_of(image: Image.Image) -> tuple[bytes | None, str]:
    """(the profile of an image that is not decoded yet, or None, why what it says of its colours cannot be followed)."""
    told = _cicp(image) if image.format == "PNG" else None
    if told is not None:
        return _by_numbers(told, grey=image.mode in GREY)
    if (given := image.info.get("icc_profile")) or image.mode in ("CMYK", "LAB"):
        return given or None, ""
    try:
        if "srgb" in image.info:
            return None, ""
        if image.format == "PNG" and (found := _by_gamma(image.info, grey=image.mode in GREY)):
            return found, ""
        return primaries.rgb_profile(D65, ADOBE, (563 / 256,)) if _is_adobe_rgb(image) else None, ""
    except BROKEN:  # tags of rubbish say nothing
        return None, ""


def _by_numbers(told: tuple[int, ...], *, grey: bool) -> tuple[bytes | None, str]:
    """The same by the four numbers of cICP."""
    colours, curve, matrix, full = told
    if curve in HDR:
        return None, f"it is for screens of high dynamic range ({HDR[curve]})"
    if colours not in PRIMARIES or curve not in CURVES or matrix != 0 or full != 1:
        return None, f"its cICP chunk has the numbers {colours}, {curve}, {matrix} and {full}, which are not known here"
    if grey:
        return primaries.grey_profile(CURVES[curve]), ""
    return primaries.rgb_profile(D65, PRIMARIES[colours], CURVES[curve]), ""


def _by_gamma(info: dict[Any, Any], *, grey: bool) -> bytes | None:
    """A profile of gAMA and cHRM; None where they are missing or those of sRGB. A gAMA near that of sRGB means sRGB's curve."""
    gamma, places = float(info.get("gamma") or 0), info.get("chromaticity")
    other = gamma > 0 and abs(gamma / ENCODING - 1) > NEAR
    curve = (1 / gamma,) if other else SRGB_CURVE
    if grey:
        return primaries.grey_profile(curve) if other else None
    if not places:
        return primaries.rgb_profile(D65, BT709, curve) if other else None
    white, red, green, blue = _pairs(places)
    return primaries.rgb_profile(white, (red, green, blue), curve)  # of sRGB's primaries it changes nothing


def _pairs(values: tuple[float, ...]) -> tuple[Place, Place, Place, Place]:
    white, red, green, blue = ((values[place], values[place + 1]) for place in range(0, 8, 2))
    return white, red, green, blue


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF data say so."""
    exif = image.getexif()
    inside = exif.get_ifd(ExifTags.IFD.Exif)
    if not inside or inside.get(COLOUR_SPACE) not in ADOBE_RGB:
        return False
    index = exif.get_ifd(ExifTags.IFD.Interop).get(1, "")
    word = index.decode("ascii", "replace") if isinstance(index, bytes) else str(index)
    return inside[COLOUR_SPACE] == 2 or word.startswith("R03")


def _cicp(image: Image.Image) -> tuple[int, ...] | None:
    """The four numbers of a PNG's cICP chunk, which Pillow passes over; None where it has none before its pixels."""
    file = getattr(image, "fp", None)
    if file is None:
        return None
    try:
        place = file.tell()
        try:
            return _found(file)
        finally:
            file.seek(place)
    except (OSError, ValueError, struct.error):
        return None


def _found(file: Any) -> tuple[int, ...] | None:
    file.seek(8)
    for _ in range(CHUNKS):
        length, name = struct.unpack(">I4s", file.read(8))
        if name == b"cICP" and length == 4:
            return tuple(file.read(4))
        if name == b"IDAT":
            return None
        file.seek(length + 4, 1)
    return None
