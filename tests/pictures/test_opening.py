"""A picture is refused for its pixels alone, in our own words; nothing that a file holds ends a run."""

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from ldmctl.config.schemas.shared import Image as Section
from ldmctl.errors import DataError
from ldmctl.pictures import images
from ldmctl.pictures.batches import Pictures
from ldmctl.protocols import Example

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
KINDS = ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA", "ICO", "PCX", "DDS", "SGI", "MPO"]


def chunk(name: bytes, data: bytes, *, checksum: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if checksum is None else checksum)


def png(*extra: bytes, last: bytes = b"", picture=PICTURE, **options) -> bytes:
    """A PNG with more chunks behind its header, and others before its end."""
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    content = file.getvalue()
    return content[:33] + b"".join(extra) + content[33:-12] + last + content[-12:]


def written(folder, content: bytes, name="picture.png"):
    (folder / name).write_bytes(content)
    return folder / name


PACKED = zlib.compress(bytes(64 << 20), 9)  # unpacks to 64 MiB
WASTE = {
    "two megabytes of text, packed": [chunk(b"zTXt", b"note\0\0" + zlib.compress(b"a" * (2 << 20)))],
    "five megabytes of XMP": [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b" " * (5 << 20))],
    "a hundred megabytes of text": [chunk(b"tEXt", b"note\0" + b"a" * (25 << 20))] * 4,
    "a text that unpacks to 64 megabytes": [chunk(b"zTXt", b"note\0\0" + PACKED)],
    "a profile that unpacks to 64 megabytes": [chunk(b"iCCP", b"wide\0\0" + PACKED)],
    "a profile packed in an unknown way": [chunk(b"iCCP", b"wide\0\7rubbish")],
    "a profile that is no packed data": [chunk(b"iCCP", b"wide\0\0rubbish")],
    "a text with a wrong checksum": [chunk(b"tEXt", b"note\0text", checksum=1)],
    "a gamma cut short": [chunk(b"gAMA", b"\0")],
    "sizes cut short": [chunk(b"pHYs", b"\0\0")],
    "an animation of nothing": [chunk(b"acTL", b"\0")],
}


@pytest.mark.parametrize("waste", WASTE)
@pytest.mark.parametrize("behind", [False, True])
def test_what_lies_beside_the_pixels_never_costs_a_picture(waste, behind, tmp_path):
    content = png(last=b"".join(WASTE[waste])) if behind else png(*WASTE[waste])
    assert images.load(images.opened(written(tmp_path, content)), channels=3).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("cut", [1, 6, 12, 14, 30])
def test_a_png_cut_behind_its_pixels_is_whole(cut, tmp_path):
    content = png(last=chunk(b"tEXt", b"note\0some text"))
    assert images.load(images.opened(written(tmp_path, content[:-cut])), channels=3).tobytes() == PICTURE.tobytes()


def test_a_large_profile_is_still_used(tmp_path):
    import profiles

    profile = profiles.rgb_profile(profiles.P3, "x" * (2 << 20))
    picture = Image.new("RGB", (8, 8), (200, 100, 50))
    loaded = images.load(images.opened(written(tmp_path, png(picture=picture, icc_profile=profile))), channels=3)
    assert list(loaded.getpixel((0, 0))) == pytest.approx(profiles.expected(profiles.P3, (200, 100, 50)), abs=1)


def test_a_file_repaired_while_it_is_opened_keeps_orientation_and_transparency(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("P", (16, 8), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    content = png(chunk(b"gAMA", b"\0"), picture=picture, exif=exif, transparency=0)
    loaded = images.load(images.opened(written(tmp_path, content)), channels=4)
    assert loaded.size == (8, 16) and loaded.getpixel((0, 0))[3] == 0


def test_a_png_whose_pixels_are_cut_is_refused_by_name(tmp_path):
    path = written(tmp_path, png()[: len(png()) // 2])
    with pytest.raises(DataError, match=r"picture\.png cannot be decoded"):
        images.load(images.opened(path), channels=3)


def test_limits_are_put_back():
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    images.load(PICTURE, channels=3)
    with pytest.raises(DataError):
        images.prepare(PICTURE, Section(size=8, max_pixels=10))
    assert before == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


# -- large pictures ----------------------------------------------------------


def sparse(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is of this size."""
    data = zlib.compress(b"\0" + b"\xff" * (width // 8))
    header = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_huge_picture_is_unreadable_with_its_size_and_the_key(tmp_path):
    path = written(tmp_path, sparse(40_000, 20_000))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match=r"picture\.png is 40000x20000 pixels, more than the 200,000,000 that image\.max_pixels allows"):
            images.prepare(images.opened(path), Section(size=8))
    assert not [each for each in said if each.category is not ResourceWarning]


def test_a_picture_above_pillows_own_limit_is_read_without_a_warning(tmp_path, monkeypatch):
    path = written(tmp_path, png())
    for own in (2000, 1000):  # Pillow would warn, then refuse
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", own)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            assert images.prepare(images.opened(path), Section(size=8)).shape == (3, 8, 8)
            assert Pictures(Files([path]), Section(size=8)).item(0).shape == (3, 8, 8)
            assert Pictures(Files([path, path]), Section(size=8, max_pixels=2000)).look(0)[0] is None


def test_the_key_lets_larger_ones_in_and_keeps_smaller_ones_out():
    with pytest.raises(DataError, match="64x48 pixels, more than the 3,071"):
        images.prepare(PICTURE, Section(size=8, max_pixels=64 * 48 - 1))
    assert images.prepare(PICTURE, Section(size=8, max_pixels=64 * 48)).shape == (3, 8, 8)


class Files:
    """A data set of files, opened by Pillow without any care."""

    classes: list[str] = []

    def __init__(self, paths, *, decoded=False):
        self.paths, self.decoded = paths, decoded

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        picture = Image.open(self.paths[index])
        return Example(picture.convert("RGB") if self.decoded else picture)

    def stamp(self, index):
        return f"{self.paths[index].name}:1:1"


@pytest.mark.parametrize("decoded", [False, True])
def test_one_bad_file_stops_nobody_though_the_data_set_takes_no_care(decoded, tmp_path):
    good = [written(tmp_path, png(*WASTE["two megabytes of text, packed"]), f"{i}.png") for i in range(3)]
    bad = [
        written(tmp_path, sparse(40_000, 20_000), "huge.png"),
        written(tmp_path, b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg.png"),
    ]
    for file in bad:
        pictures = Pictures(Files([file, *good], decoded=decoded), Section(size=8))
        assert pictures.batch([(0, None), (1, None)]).used == [1, 1]
        assert len(pictures.bad) == 1 and file.name in pictures.bad[0]["reason"]
    assert "more than" in Pictures(Files([bad[0], *good], decoded=decoded), Section(size=8)).look(0)[1][0]["reason"]


def test_an_error_of_the_data_set_itself_is_not_taken_for_a_bad_picture():
    class Wrong(Files):
        def __getitem__(self, index):
            raise KeyError("a mistake")

    with pytest.raises(KeyError):
        Pictures(Wrong([1, 2]), Section(size=8)).item(0)


# -- files that are no pictures ------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"<html>",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"RIFF\xff\xff\xff\x7fWEBPVP8X",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"\0\0\0\x1cftypavif",
    ],
)
def test_what_is_no_picture_is_said_by_name(content, tmp_path):
    path = written(tmp_path, content, "file.jpg")
    with pytest.raises(DataError, match=r"file\.jpg"):
        images.read(path)


def mutations(content: bytes, count: int):
    """The same file cut, with parts missing or doubled, and with bytes changed, mostly near its head."""
    draw = random.Random(len(content))
    for number in range(count):
        changed = bytearray(content)
        if number % 5 == 0:
            del changed[draw.randrange(len(changed)) :]
        elif number % 5 == 1:
            place = draw.randrange(len(changed))
            del changed[place : place + draw.randrange(1, 64)]
        else:
            for _ in range(draw.choice([1, 2, 4, 16, 64])):
                changed[draw.randrange(min(len(changed), draw.choice([64, 300, 1 << 20])))] = draw.choice([0, 1, 127, 128, 255])
        yield bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_a_picture_or_a_sentence(kind, tmp_path, capfd):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(file, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "MPO") else {}))
    refused = 0
    for content in mutations(file.getvalue(), 60):
        try:
            found = images.prepare(images.opened(written(tmp_path, content, "file.img")), Section(size=8, max_pixels=1 << 22))
            assert found.shape == (3, 8, 8) and found.dtype == torch.uint8
        except DataError as error:
            assert "file.img" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_damaged_files_of_each_kind_are_pictures_or_sentences(kind, tmp_path, capfd):
    file = io.BytesIO()
    PICTURE.save(file, kind)
    for content in mutations(file.getvalue(), 2000):
        try:
            images.prepare(images.opened(written(tmp_path, content, "file.img")), Section(size=8, max_pixels=1 << 22))
        except DataError as error:
            assert "file.img" in str(error)


def test_what_is_said_of_a_broken_picture_names_no_place_in_memory(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    with pytest.raises(DataError) as caught:
        images.read(tmp_path / "broken.png")
    assert "0x" not in str(caught.value) and "cannot identify image file" in str(caught.value)
