"""Colours that are told by tags in place of a profile: EXIF data of cameras, and the chunks of a PNG."""

import io
import struct
import zlib

import numpy as np
import profiles
import pytest
import torch
from PIL import Image
from test_colour import COLOURS, first_pixel, scene, stored

from ldmctl.config.schemas.shared import Image as Section
from ldmctl.pictures import images
from ldmctl.pictures.colour import transform_of
from ldmctl.pictures.primaries import ADOBE, BT709, D65, P3, SRGB_CURVE, rgb_profile

BT2020 = [[0.6734, 0.1656, 0.1251], [0.2790, 0.6753, 0.0457], [-0.0019, 0.0299, 0.7969]]  # adapted to D50
LINEAR, MAC = 1.0, 1.8
PLACES = {  # cHRM: white, red, green and blue
    "sRGB": (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    "Display P3": (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    "Adobe RGB": (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
}


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tagged(image, **chunks):
    """The image as a PNG with these chunks after its header."""
    file = io.BytesIO()
    image.save(file, "PNG")
    content = file.getvalue()
    more = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    return Image.open(io.BytesIO(content[:33] + more + content[33:]))


def gama(value):
    return struct.pack(">I", round(value * 100000))


def chrm(space):
    return struct.pack(">8I", *(round(value * 100000) for value in PLACES[space]))


def camera(word, space=0xFFFF, kind="JPEG", mode="RGB", colour=(200, 100, 50)):
    """A picture with the EXIF data of a camera."""
    exif = Image.Exif()
    exif[0x8769] = {0xA001: space, 0xA005: {1: word}}
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    return stored(Image.new(mode, (16, 16), colour), kind, exif=exif.tobytes() if kind == "TIFF" else exif, **options)


@pytest.mark.parametrize(("known", "told"), [(profiles.P3, (D65, P3, SRGB_CURVE)), (profiles.ADOBE, (D65, ADOBE, (563 / 256,)))])
def test_profiles_made_of_numbers_are_those_that_are_published(known, told):
    for colour in COLOURS:
        picture = stored(Image.new("RGB", (8, 8), colour), icc_profile=rgb_profile(*told))
        assert first_pixel(picture) == pytest.approx(profiles.expected(known, colour), abs=1)
    assert transform_of(rgb_profile(D65, BT709, SRGB_CURVE)) == ("RGB", None)


@pytest.mark.parametrize(
    ("kind", "word", "space"),
    [
        (kind, *told)
        for kind in ("JPEG", "WEBP", "TIFF", "PNG")
        for told in (("R03", 0xFFFF), ("R98", 2))
        if (kind, *told) != ("TIFF", "R03", 0xFFFF)
    ],
)  # Pillow writes no such word into a TIFF
def test_a_camera_that_says_adobe_rgb_is_heard(kind, word, space):
    picture = camera(word, space, kind)
    assert first_pixel(picture) == pytest.approx(profiles.expected(profiles.ADOBE, (200, 100, 50)), abs=2)
    assert first_pixel(camera(word, space, kind), profile="keep") == pytest.approx([200, 100, 50], abs=2)


@pytest.mark.parametrize(("word", "space"), [("R98", 1), ("R98", 0xFFFF), ("THM", 0xFFFF), ("", 1), ("R03", 1)])
def test_a_camera_that_says_srgb_or_nothing_known_changes_nothing(word, space):
    assert first_pixel(camera(word, space, "WEBP")) == [200, 100, 50]


def test_grey_of_a_camera_in_adobe_rgb_stays_grey():
    picture = camera("R03", mode="L", colour=100)
    assert first_pixel(picture) == pytest.approx([profiles.expected_grey(563 / 256, 100)] * 3, abs=1)


def test_a_profile_is_heard_before_exif_data():
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    picture = stored(Image.new("RGB", (8, 8), (200, 100, 50)), exif=exif, icc_profile=profiles.rgb_profile(profiles.P3))
    assert first_pixel(picture) == pytest.approx(profiles.expected(profiles.P3, (200, 100, 50)), abs=1)


def test_a_picture_of_a_camera_is_not_converted_twice():
    once = images.load(camera("R03"), channels=3)
    assert images.load(once, channels=3).tobytes() == once.tobytes()


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    ("numbers", "space"),
    [
        ((12, 13, 0, 1), profiles.P3),
        ((9, 13, 0, 1), (BT2020, "srgb")),
        ((1, 8, 0, 1), (profiles.SRGB[0], LINEAR)),
        ((12, 4, 0, 1), (profiles.P3[0], 2.2)),
    ],
)
def test_the_numbers_of_a_png_decide_before_all_else(numbers, space, colour):
    picture = tagged(Image.new("RGB", (8, 8), colour), cICP=bytes(numbers), sRGB=b"\0", gAMA=gama(1.0))
    assert first_pixel(picture) == pytest.approx(profiles.expected(space, colour), abs=2)


@pytest.mark.parametrize("numbers", [(1, 13, 0, 1), (12, 16, 0, 1), (9, 18, 0, 1), (77, 13, 0, 1), (12, 13, 0, 0)])
def test_numbers_of_srgb_or_of_what_is_not_known_leave_the_pixels(numbers):
    picture = scene()
    array, facts = images.prepare_noting(tagged(picture, cICP=bytes(numbers)), Section(size=32))
    assert torch.equal(array, images.prepare(picture, Section(size=32)))
    assert bool(facts.profile) == (numbers != (1, 13, 0, 1)) and ("high dynamic range" in facts.profile) == (numbers[1] in (16, 18))


@pytest.mark.parametrize("space", [profiles.P3, profiles.ADOBE])
def test_the_chromaticities_of_a_png_are_followed(space):
    name, gamma = ("Display P3", 1 / 2.2) if space is profiles.P3 else ("Adobe RGB", 256 / 563)
    picture = tagged(Image.new("RGB", (8, 8), (200, 100, 50)), gAMA=gama(gamma), cHRM=chrm(name))
    assert first_pixel(picture) == pytest.approx(profiles.expected((space[0], "srgb"), (200, 100, 50)), abs=2)


@pytest.mark.parametrize("exponent", [LINEAR, MAC])
@pytest.mark.parametrize("places", [True, False])
def test_another_gamma_of_a_png_is_followed(exponent, places):
    chunks = {"gAMA": gama(1 / exponent)} | ({"cHRM": chrm("sRGB")} if places else {})
    colour = tagged(Image.new("RGB", (8, 8), (200, 100, 50)), **chunks)
    assert first_pixel(colour) == pytest.approx(profiles.expected((profiles.SRGB[0], exponent), (200, 100, 50)), abs=1)
    grey = tagged(Image.new("L", (8, 8), 100), **chunks)
    assert first_pixel(grey, channels=1) == pytest.approx([profiles.expected_grey(exponent, 100)], abs=1)
    deep = tagged(Image.fromarray(np.full((8, 8), 100 * 257, np.uint16)), **chunks)
    assert first_pixel(deep, channels=1) == pytest.approx([profiles.expected_grey(exponent, 100)], abs=1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
@pytest.mark.parametrize(
    "chunks",
    [
        {"gAMA": gama(0.45455)},
        {"gAMA": gama(0.42)},
        {"gAMA": gama(0.45455), "cHRM": chrm("sRGB")},
        {"cHRM": chrm("sRGB")},
        {"sRGB": b"\0", "gAMA": gama(1.0), "cHRM": chrm("Display P3")},
        {"gAMA": gama(0)},
        {"cHRM": bytes(32)},
        {"cHRM": struct.pack(">8I", *[31270, 32900, 20000, 20000, 30000, 30000, 40000, 40000])},
        {"gAMA": gama(1e-5)},
    ],
)
def test_what_a_png_says_of_srgb_or_without_sense_leaves_every_bit(mode, chunks):
    picture = scene(mode)
    if chunks == {"gAMA": gama(1e-5)}:
        images.prepare(tagged(picture, **chunks), Section(size=32))  # no picture, and no error
        return
    assert torch.equal(images.prepare(tagged(picture, **chunks), Section(size=32)), images.prepare(stored(picture), Section(size=32)))


def test_alpha_is_kept_where_tags_decide():
    picture = tagged(Image.new("RGBA", (8, 8), (200, 100, 50, 128)), cICP=bytes((12, 13, 0, 1)))
    expected = [*profiles.expected(profiles.P3, (200, 100, 50)), 128]
    assert first_pixel(picture, channels=4) == pytest.approx(expected, abs=1)


def test_a_png_that_is_repaired_keeps_what_it_says_of_its_colours(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(file, "PNG")
    content = file.getvalue()
    broken = b"\0\0\0\4tEXtabcd\0\0\0\0"  # of a wrong checksum
    (tmp_path / "a.png").write_bytes(content[:33] + chunk(b"cICP", bytes((12, 13, 0, 1))) + broken + content[33:])
    assert first_pixel(images.opened(tmp_path / "a.png")) == pytest.approx(profiles.expected(profiles.P3, (200, 100, 50)), abs=1)
