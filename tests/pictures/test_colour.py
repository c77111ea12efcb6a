"""A colour is the same whatever profile it is told in."""

import io
import pickle
from types import SimpleNamespace

import numpy as np
import profiles
import pytest
import torch
from PIL import Image, ImageCms

from ldmctl.config.schemas.shared import Image as Section
from ldmctl.pictures import images
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.colour import Unusable, transform_of
from ldmctl.pictures.workers import batches
from ldmctl.protocols import Example

SPACES = {"Display P3": profiles.P3, "Adobe RGB": profiles.ADOBE, "ProPhoto": profiles.PROPHOTO}
COLOURS = [(200, 100, 50), (60, 140, 90), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
REAL_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return Image.open(file)


def first_pixel(image, **options):
    return images.prepare(image, Section(size=4, **options))[:, 0, 0].tolist()


def scene(mode="RGB", side=32):
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("space", SPACES)
def test_a_colour_becomes_that_of_srgb(space, colour):
    picture = stored(Image.new("RGB", (8, 8), colour), icc_profile=profiles.rgb_profile(SPACES[space]))
    assert first_pixel(picture) == pytest.approx(profiles.expected(SPACES[space], colour), abs=1)
    assert first_pixel(picture, profile="keep") == list(colour)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_format_that_carries_a_profile_is_converted(kind):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    colour = (200, 100, 50)
    picture = stored(Image.new("RGB", (16, 16), colour), kind, icc_profile=profiles.rgb_profile(profiles.P3), **options.get(kind, {}))
    assert first_pixel(picture) == pytest.approx(profiles.expected(profiles.P3, colour), abs=4)


@pytest.mark.parametrize("exponent", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("value", [0, 30, 100, 200, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_becomes_that_of_srgb_and_stays_grey(exponent, value, channels):
    picture = stored(Image.new("L", (8, 8), value), icc_profile=profiles.grey_profile(exponent))
    assert first_pixel(picture, channels=channels) == pytest.approx([profiles.expected_grey(exponent, value)] * channels, abs=1)


def test_ink_is_seen_as_its_profile_says():
    cyan, white, black = (Image.new("CMYK", (16, 16), ink) for ink in [(255, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 255)])
    ink = profiles.ink_profile()
    red, green, blue = first_pixel(stored(cyan, "TIFF", icc_profile=ink))
    assert red < 20 and 140 < green < 190 and 210 < blue < 250, "the cyan of ink is not that of a screen"
    assert first_pixel(stored(white, "TIFF", icc_profile=ink)) == [255, 255, 255]
    assert first_pixel(stored(black, "TIFF", icc_profile=ink)) == pytest.approx([0, 0, 0], abs=2)
    assert first_pixel(stored(cyan, "TIFF", icc_profile=ink), profile="keep") == [0, 255, 255]


def test_a_jpeg_of_ink_is_the_same_as_a_tiff_of_it():
    picture = Image.new("CMYK", (64, 64), (200, 30, 10, 20))
    found = [first_pixel(stored(picture, kind, icc_profile=profiles.ink_profile())) for kind in ("JPEG", "TIFF")]
    assert found[0] == pytest.approx(found[1], abs=4)
    drafted = images.prepare(stored(picture.resize((512, 512)), "JPEG", icc_profile=profiles.ink_profile()), Section(size=4))
    assert drafted[:, 0, 0].tolist() == pytest.approx(found[1], abs=4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
@pytest.mark.parametrize(
    "profile", [REAL_SRGB, profiles.rgb_profile(profiles.SRGB, "sRGB IEC61966-2.1"), profiles.rgb_profile(profiles.SRGB, "c2")]
)
def test_pixels_tagged_as_srgb_come_out_bit_for_bit(mode, profile):
    picture = scene(mode)
    assert transform_of(profile) == ("RGB", None)
    plain, tagged = (images.prepare(stored(picture, **options), Section(size=32)) for options in ({}, {"icc_profile": profile}))
    assert torch.equal(plain, tagged)


def test_grey_tagged_as_srgb_comes_out_bit_for_bit():
    assert transform_of(profiles.grey_profile("srgb")) == ("GRAY", None)


def test_another_space_under_the_name_of_srgb_is_converted():
    assert transform_of(profiles.rgb_profile(profiles.PROPHOTO, "sRGB IEC61966-2.1"))[1] is not None


@pytest.mark.parametrize(
    "profile",
    [
        b"rubbish",
        b"\0" * 200,
        REAL_SRGB[:300],
        profiles.rgb_profile(profiles.P3)[:-2000],
        profiles.ink_profile(),
        profiles.grey_profile(1.8),
    ],
)
def test_a_broken_or_foreign_profile_leaves_the_colours_and_is_told(profile):
    picture = scene()
    array, facts = images.prepare_noting(stored(picture, icc_profile=profile), Section(size=32))
    assert torch.equal(array, images.prepare(picture, Section(size=32))) and facts.profile


def test_a_profile_of_no_pixels_is_unusable():
    with pytest.raises(Unusable):
        transform_of(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())


def test_alpha_is_kept_and_the_background_is_srgb():
    colour = (200, 100, 50)
    picture = Image.new("RGBA", (8, 8), (*colour, 128))
    tagged = {"icc_profile": profiles.rgb_profile(profiles.P3)}
    inside = profiles.expected(profiles.P3, colour)
    assert first_pixel(stored(picture, **tagged), channels=4) == pytest.approx([*inside, 128], abs=1)
    mixed = [round((128 * value + 127 * 255) / 255) for value in inside]
    assert first_pixel(stored(picture, **tagged)) == pytest.approx(mixed, abs=2)
    clear = Image.new("RGBA", (8, 8), (*colour, 0))
    assert first_pixel(stored(clear, **tagged), background="#102030") == [16, 32, 48]


def test_grey_with_alpha_follows_its_profile():
    picture = Image.new("LA", (8, 8), (100, 255))
    assert first_pixel(stored(picture, icc_profile=profiles.grey_profile(1.0))) == pytest.approx(
        [profiles.expected_grey(1.0, 100)] * 3, abs=1
    )


def test_a_palette_follows_its_profile_and_keeps_what_is_clear():
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([200, 100, 50, 0, 0, 255])
    picture.paste(1, (0, 4, 8, 8))
    tagged = stored(picture, icc_profile=profiles.rgb_profile(profiles.P3), transparency=1)
    array = images.prepare(tagged, Section(size=8))
    assert array[:, 0, 0].tolist() == pytest.approx(profiles.expected(profiles.P3, (200, 100, 50)), abs=1)
    assert array[:, 7, 0].tolist() == [255, 255, 255]


def test_16_bit_grey_follows_its_profile():
    deep = Image.fromarray(np.full((8, 8), 100 * 257, np.uint16))
    assert first_pixel(stored(deep, icc_profile=profiles.grey_profile(1.0))) == pytest.approx([profiles.expected_grey(1.0, 100)] * 3, abs=1)


def test_orientation_and_profile_go_together():
    picture = Image.new("RGB", (16, 8), (200, 100, 50))
    picture.paste((0, 0, 0), (8, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = images.load(stored(picture, exif=exif, icc_profile=profiles.rgb_profile(profiles.P3)), channels=3)
    assert loaded.size == (8, 16)
    assert list(loaded.getpixel((4, 2))) == pytest.approx(profiles.expected(profiles.P3, (200, 100, 50)), abs=1)
    assert loaded.getpixel((4, 14)) == (0, 0, 0)


def test_a_picture_is_not_converted_twice():
    picture = stored(Image.new("RGB", (8, 8), (200, 100, 50)), icc_profile=profiles.rgb_profile(profiles.P3))
    once = images.load(picture, channels=3)
    assert images.load(once, channels=3).tobytes() == once.tobytes()


def test_a_transform_is_made_once_for_a_profile():
    transform_of.cache_clear()
    for _ in range(5):
        first_pixel(stored(scene(), icc_profile=profiles.rgb_profile(profiles.P3)))
    assert transform_of.cache_info().misses == 1


class Tagged:
    """Pictures of one colour in Display P3, as bytes."""

    classes: list[str] = []

    def __init__(self):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 100, 50)).save(file, "PNG", icc_profile=profiles.rgb_profile(profiles.P3))
        self.content = file.getvalue()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Example(Image.open(io.BytesIO(self.content)))

    def stamp(self, index):
        return str(index)


def test_workers_convert_as_one_process_does():
    alone, helped = Pictures(Tagged(), Section(size=4)), Pictures(Tagged(), Section(size=4))
    expected = next(batches(alone, [[(0, 0), (1, 1)]]))
    assert torch.equal(expected.image, next(batches(helped, [[(0, 0), (1, 1)]], workers=1)).image)
    assert torch.equal(pickle.loads(pickle.dumps(alone)).item(2), expected.image[0])


def test_settings_without_the_key_are_those_of_srgb():
    older = SimpleNamespace(size=4, channels=3, crop="center", flip=False, background="white")
    picture = stored(Image.new("RGB", (8, 8), (200, 100, 50)), icc_profile=profiles.rgb_profile(profiles.P3))
    assert images.prepare(picture, older)[:, 0, 0].tolist() == first_pixel(picture)
