"""Pictures as people store them become the one form that models see."""

import io
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl.errors import ConfigError, DataError
from ldmctl.pictures import images, png


def settings(size=8, *, channels=3, crop="center", flip=False, background="white"):
    return SimpleNamespace(size=size, channels=channels, crop=crop, flip=flip, background=background)


def stored(image: Image.Image, kind: str, **options) -> Image.Image:
    """The image as it comes back from a file, not yet decoded."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return Image.open(file)


def halves(width=32, height=16) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width // 2, height))
    return image


def noise(channels=3, height=20, width=30) -> torch.Tensor:
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = Image.fromarray(noise().permute(1, 2, 0).numpy())
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Pillow's numbers of the inverse turns
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = upright if back is None else upright.transpose(Image.Transpose(back))
    assert images.load(stored(turned, "PNG", exif=exif), channels=3).tobytes() == upright.tobytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("block", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_broken_exif_is_not_fatal(block):
    picture = stored(halves(), "JPEG", exif=block, quality=95)
    assert images.prepare(picture, settings(8)).shape == (3, 8, 8)


def test_a_broken_xmp_block_is_not_fatal():
    picture = halves()
    picture.info["xmp"] = b"<x:xmpmeta tiff:Orientation='many'"
    assert images.load(picture, channels=3).size == (32, 16)


def test_transparent_red_over_white_is_white():
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (images.prepare(stored(picture, "PNG"), settings()) == 255).all()
    assert images.prepare(picture, settings(background="#102030"))[:, 0, 0].tolist() == [16, 32, 48]


@pytest.mark.parametrize("size", [8, 16])
def test_transparent_pixels_leak_no_colour_with_four_channels(size):
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    picture.paste((0, 255, 0, 255), (4, 4, 12, 12))
    array = images.prepare(picture, settings(size, channels=4))
    clear = array[:, array[3] == 0]
    assert clear.numel() and (clear[:3] == 255).all()
    assert array[0][array[3] > 32].max() < 16, "no red in what is seen"


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 90, (90, 90, 90)),
        ("LA", (90, 0), (255, 255, 255)),
        ("LA", (90, 255), (90, 90, 90)),
        ("P", 0, (255, 0, 0)),
        ("RGBA", (0, 0, 255, 255), (0, 0, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 257 * 100, (100, 100, 100)),
        ("I", 257 * 30, (30, 30, 30)),
        ("F", 0.2, (51, 51, 51)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, expected):
    picture = Image.new(mode, (8, 8), colour)
    if mode == "P":
        picture.putpalette([255, 0, 0, 0, 0, 255])
    assert images.prepare(picture, settings())[:, 3, 3].tolist() == list(expected)
    assert images.prepare(picture, settings(channels=1)).shape == (1, 8, 8)
    assert images.prepare(picture, settings(channels=4)).shape == (4, 8, 8)


def test_a_palette_with_transparency_is_laid_over_the_background():
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(1, (0, 0, 4, 8))
    array = images.prepare(stored(picture, "PNG", transparency=0), settings())
    assert array[:, 4, 1].tolist() == [0, 0, 255]
    assert array[:, 4, 6].tolist() == [255, 255, 255]


def test_16_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    array = images.prepare(stored(Image.fromarray(ramp), "PNG"), settings(16, channels=1))
    assert array.flatten().tolist() == list(range(256))


def test_numbers_without_a_known_white_are_refused():
    with pytest.raises(DataError, match="values from"):
        images.load(Image.new("F", (4, 4), 300.0), channels=3)


def test_grey_stays_grey_in_one_and_three_channels():
    assert (images.prepare(Image.new("L", (8, 8), 7), settings(channels=1)) == 7).all()
    assert (images.prepare(Image.new("L", (8, 8), 7), settings(channels=3)) == 7).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_arrays_are_taken_as_they_are(channels, kind):
    array = noise(channels, 12, 12)
    array[-1] = 255 if channels in (2, 4) else array[-1]
    given = array if kind is torch.Tensor else array.numpy()
    expected = array[:1].expand(3, -1, -1) if channels < 3 else array[:3]
    assert torch.equal(images.prepare(given, settings(12)), expected)


def test_arrays_of_another_kind_are_refused():
    with pytest.raises(DataError, match=r"uint8 \[C,H,W\]"):
        images.prepare(torch.zeros(3, 8, 8), settings())


def test_a_truncated_jpeg_is_an_error_and_never_half_grey(tmp_path):
    file = io.BytesIO()
    Image.fromarray(noise(3, 64, 64).permute(1, 2, 0).numpy()).save(file, "JPEG")
    path = tmp_path / "half.jpg"
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    for size in (8, 64):
        with pytest.raises(DataError, match=r"half\.jpg.*truncated"):
            images.prepare(Image.open(path), settings(size))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (200, 2)])
def test_pictures_too_small_or_narrow_are_refused(size):
    with pytest.raises(DataError, match="too small or too narrow"):
        images.prepare(Image.new("RGB", size), settings())


@pytest.mark.parametrize("size", [(2, 2), (5, 3), (300, 40), (31, 33)])
@pytest.mark.parametrize("crop", ["center", "random"])
def test_the_shorter_side_has_the_wanted_size(size, crop):
    array = images.prepare(Image.new("RGB", size), settings(32, crop=crop))
    assert min(array.shape[1:]) == 32 and array.is_contiguous()
    assert crop == "random" or array.shape == (3, 32, 32)


def test_the_center_is_the_same_however_it_is_reached():
    picture = Image.fromarray(noise(3, 50, 90).permute(1, 2, 0).numpy())
    loose = settings(20, crop="random", flip=True)
    assert torch.equal(images.finish(images.prepare(picture, loose), loose, None), images.prepare(picture, settings(20)))


def test_a_jpeg_is_drafted_only_when_it_stays_twice_as_large():
    picture = halves(512, 256)
    assert images.load(stored(picture, "JPEG"), channels=3, enough=32).size == (128, 64)
    assert images.load(stored(picture, "JPEG"), channels=3, enough=100).size == (512, 256)


def test_reduction_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    array = images.prepare(Image.fromarray(stripes), settings(8, channels=1))
    assert array.min() >= 120 and array.max() <= 135


def test_crop_and_flip_follow_the_generator_and_draw_alike():
    loose, strict = settings(8, crop="random", flip=True), settings(8)
    array = noise(3, 8, 40)
    first = [images.finish(array, loose, torch.Generator().manual_seed(seed)) for seed in range(20)]
    again = [images.finish(array, loose, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all(map(torch.equal, first, again)) and len({image.numpy().tobytes() for image in first}) > 10
    states = []
    for choice in (loose, strict):
        generator = torch.Generator().manual_seed(3)
        images.finish(array, choice, generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_random_crops_reach_both_ends():
    array = torch.arange(12, dtype=torch.uint8).expand(1, 8, 12)
    crops = [images.finish(array, settings(8, crop="random"), torch.Generator().manual_seed(seed)) for seed in range(60)]
    assert {int(crop[0, 0, 0]) for crop in crops} == {0, 1, 2, 3, 4}


def test_an_unknown_background_is_a_sentence():
    with pytest.raises(ConfigError, match="'wite' is not a colour"):
        images.rgb("wite")


def test_float_and_back_is_exact():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    values = images.to_float(every)
    assert values.dtype == torch.float32 and values.min() == -1 and values.max() == 1
    assert torch.equal(images.to_uint8(values), every)
    assert images.to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_padding_is_undone():
    image = torch.rand(2, 3, 13, 8)
    padded = images.pad_to(image, 8)
    assert padded.shape == (2, 3, 16, 8)
    assert torch.equal(images.crop_to(padded, (13, 8)), image)
    assert images.pad_to(padded, 8) is padded


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_grid_holds_every_picture(channels, tmp_path):
    batch = torch.stack([noise(channels, 6, 5) for _ in range(5)])
    canvas = png.grid(batch)
    assert canvas.shape == (channels, 2 * 6 + 2, 3 * 5 + 4)
    assert torch.equal(canvas[:, 8:14, 7:12], batch[4])
    assert png.grid(batch[:1]).shape == (channels, 6, 5)
    assert png.grid(batch, columns=5).shape == (channels, 6, 5 * 5 + 8)
    png.write_png(tmp_path / "grid.png", canvas)
    assert torch.equal(images.read(tmp_path / "grid.png", channels=channels), canvas) or channels == 4


def test_png_text_comes_back_and_bytes_repeat(tmp_path):
    text = {"seed": "17", "settings": '{"label": "Käse ☃"}', "empty": ""}
    first, second = tmp_path / "new" / "a.png", tmp_path / "b.png"
    png.write_png(first, noise(), text)
    png.write_png(second, noise(), dict(reversed(text.items())))
    assert png.read_png_text(first) == text
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in sorted(tmp_path.rglob("*.png"))] == ["b.png", "a.png"]
    assert not list(tmp_path.rglob(".*"))


def test_text_of_a_cut_png_is_not_believed(tmp_path):
    png.write_png(tmp_path / "a.png", noise(3, 64, 64), {"seed": "1"})
    content = (tmp_path / "a.png").read_bytes()
    for broken in (content[: len(content) // 2], b"", struct.pack("8B", *range(8))):
        (tmp_path / "a.png").write_bytes(broken)
        assert png.read_png_text(tmp_path / "a.png") == {}
    assert png.read_png_text(tmp_path / "none.png") == {}


def test_reading_something_else_is_a_data_error(tmp_path):
    Path(tmp_path / "page.png").write_text("<html>")
    with pytest.raises(DataError, match=r"page\.png cannot be read"):
        images.read(tmp_path / "page.png")
