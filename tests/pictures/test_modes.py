"""Every kind of numbers a file may hold comes out as the picture that it shows."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_opening import chunk

from ldmctl.config.schemas.shared import Image as Section
from ldmctl.errors import DataError
from ldmctl.pictures import images

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)


def stored(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return Image.open(file)


def grey(picture, **options):
    return images.prepare(picture, Section(size=8, channels=1, **options))[0].numpy()


def tiff(array: np.ndarray, folder: Path, *, bits: int, photometric: int = 1, kind: int = 1, order: str = "<") -> Image.Image:
    """A TIFF written by hand: one strip, one sample a pixel; 12 bits are packed."""
    height, width = array.shape
    data = array.astype(array.dtype.newbyteorder(order)).tobytes()
    if bits == 12:
        wide = np.unpackbits(array.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=-1)
        data = np.packbits(wide[..., 4:].reshape(height, -1), axis=1).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data), 339: kind}
    short = struct.Struct(f"{order}HHIHH")
    entries = b"".join(
        short.pack(tag, 3, 1, value, 0) if tag != 273 else struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data) + len(data) % 2)
    (folder / "grey.tif").write_bytes(head + data + bytes(len(data) % 2) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
    return images.opened(folder / "grey.tif")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_16_bit_tiff_is_right_whichever_end_is_white(photometric, order, tmp_path):
    deep = RAMP.astype(np.uint16) * 257
    picture = tiff(deep if photometric else 65535 - deep, tmp_path, bits=16, photometric=photometric, order=order)
    assert (grey(picture) == RAMP).all()


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_compressed_16_bit_tiff_is_right_too(photometric, compression):
    deep = RAMP.astype(np.uint16) * 257
    picture = stored(Image.fromarray(deep if photometric else 65535 - deep), "TIFF", tiffinfo={262: photometric}, compression=compression)
    assert (grey(picture) == RAMP).all()


@pytest.mark.parametrize("photometric", [0, 1])
def test_8_bit_tiff_is_not_turned_over_twice(photometric, tmp_path):
    assert (grey(tiff(RAMP if photometric else 255 - RAMP, tmp_path, bits=8, photometric=photometric)) == RAMP).all()


@pytest.mark.parametrize("photometric", [0, 1])
def test_float_tiff_is_right_whichever_end_is_white(photometric, tmp_path):
    values = (RAMP / 255).astype(np.float32)
    picture = tiff(values if photometric else 1 - values, tmp_path, bits=32, kind=3, photometric=photometric)
    assert (grey(picture) == RAMP).all()


def test_12_bits_are_not_taken_for_16(tmp_path):
    assert (
        np.abs(grey(tiff((RAMP.astype(np.float64) * 4095 / 255).round().astype(np.uint16), tmp_path, bits=12)).astype(int) - RAMP).max()
        <= 1
    )


def test_numbers_below_zero_are_refused_in_words(tmp_path):
    with pytest.raises(DataError, match="values from -5"):
        grey(tiff(np.full((8, 8), -5, np.int16), tmp_path, bits=16, kind=2))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bit_grey_of_any_order_is_scaled(mode):
    raw = (RAMP.astype(np.uint16) * 257).astype(">u2" if mode.endswith("B") else "<u2")
    assert (grey(Image.frombytes(mode, (8, 8), raw.tobytes())) == RAMP).all()


def test_16_bit_grey_with_a_transparent_value_shows_the_background():
    deep = RAMP.astype(np.uint16) * 257
    content = png16(deep.astype(">u2").tobytes(), kind=0, clear=struct.pack(">H", int(deep[3, 3])))
    array = images.prepare(Image.open(io.BytesIO(content)), Section(size=8, channels=3))
    assert array[:, 3, 3].tolist() == [255, 255, 255] and array[:, 0, 0].tolist() == [0, 0, 0]
    assert (images.prepare(Image.open(io.BytesIO(content)), Section(size=8, channels=4))[3] == 0).sum() == 1


def test_16_bit_colour_with_a_transparent_value_shows_the_background():
    deep = np.zeros((8, 8, 3), ">u2")
    deep[:] = (1000, 40_000, 200)
    deep[2, 2] = (5000, 300, 60_000)
    content = png16(deep.tobytes(), kind=2, clear=struct.pack(">3H", 5000, 300, 60_000))
    array = images.prepare(Image.open(io.BytesIO(content)), Section(size=8))
    assert array[:, 2, 2].tolist() == [255, 255, 255] and array[:, 0, 0].tolist() == [3, 156, 0]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_with_a_transparent_value_show_the_background(bits):
    levels = (1 << bits) - 1
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % (levels + 1)
    packed = np.packbits(np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :].reshape(8, -1), axis=1)
    content = png16(packed.tobytes(), kind=0, clear=struct.pack(">H", 1), bits=bits)
    found = grey(Image.open(io.BytesIO(content)), background="#404040")
    assert (found == np.where(values == 1, 64, values * (255 // levels))).all()


def png16(data: bytes, *, kind: int, clear: bytes, bits: int = 16) -> bytes:
    """An 8 x 8 PNG of this colour type and depth with one transparent colour."""
    width = len(data) // 8
    rows = b"".join(b"\0" + data[row * width : (row + 1) * width] for row in range(8))
    header = struct.pack(">2I5B", 8, 8, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", clear) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("lab", "rgb"), [((255, 128, 128), (255, 255, 255)), ((0, 128, 128), (0, 0, 0)), ((138, 209, 198), (254, 0, 0))])
def test_lab_is_seen_as_the_colour_it_names(lab, rgb):
    picture = stored(Image.new("LAB", (8, 8), lab), "TIFF")
    assert images.prepare(picture, Section(size=8))[:, 0, 0].tolist() == pytest.approx(rgb, abs=6)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_ink_is_not_turned_over(kind):
    picture = stored(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind)
    assert images.prepare(picture, Section(size=8))[:, 0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_an_adobe_jpeg_of_ink_is_not_turned_over():
    file = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(file, "JPEG")
    content = file.getvalue()
    marker = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
    content = content if b"Adobe" in content else content[:2] + marker + content[2:]
    assert images.prepare(Image.open(io.BytesIO(content)), Section(size=8))[:, 0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize(("mode", "pixel", "expected"), [("La", (50, 128), (100, 128)), ("RGBa", (50, 25, 0, 128), (100, 50, 128))])
def test_premultiplied_alpha_is_undone(mode, pixel, expected):
    array = images.prepare(Image.new(mode, (8, 8), pixel), Section(size=8, channels=4))
    assert array[:, 0, 0].tolist()[: len(expected) - 1] == pytest.approx(expected[:-1], abs=2) and array[3, 0, 0] == 128


def test_one_bit_is_black_and_white():
    picture = stored(Image.fromarray(RAMP > 128), "TIFF")
    assert (grey(picture) == np.where(RAMP > 128, 255, 0)).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP", "AVIF"])
def test_of_several_frames_the_first_is_taken(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(picture, "n_frames", 1) > 1
    assert images.prepare(picture, Section(size=8))[:, 4, 4].tolist() == pytest.approx([255, 0, 0], abs=4)


@pytest.mark.parametrize("size", [(1, 1), (1, 5)])
def test_a_pixel_is_no_picture(size):
    with pytest.raises(DataError, match="too small"):
        images.prepare(stored(Image.new("RGB", size), "PNG"), Section(size=8))
