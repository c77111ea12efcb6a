"""A PNG whose pixels are damaged is refused, and never black where the damage begins; one with wrong check sums around sound pixels is read."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ldmctl.errors import DataError
from ldmctl.pictures.pillow import load, opened

PIXELS = np.random.default_rng(0).integers(1, 256, (64, 64, 3), dtype=np.uint8)


def written(path, content: bytes):
    path.write_bytes(content)
    return opened(path)


def content() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


def test_one_flipped_bit_of_the_pixels_is_refused_in_words(tmp_path):
    draw, whole = random.Random(0), content()
    begin = whole.index(b"IDAT") + 6
    for _ in range(50):
        changed = bytearray(whole)
        changed[draw.randrange(begin, len(whole) - 20)] ^= 1 << draw.randrange(8)
        with pytest.raises(DataError, match=r"a\.png cannot be decoded: its pixels are damaged"):
            load(written(tmp_path / "a.png", bytes(changed)), channels=3)


@pytest.mark.parametrize("extra", [b"", b"\0\0\0\1gAMA\0\0\0\0\0"])
def test_damage_is_seen_in_a_file_that_is_repaired_too(tmp_path, extra):
    changed = bytearray(content())
    changed[len(changed) // 2] ^= 4
    changed[33:33] = extra
    with pytest.raises(DataError, match="its pixels are damaged"):
        load(written(tmp_path / "a.png", bytes(changed)), channels=3)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("smooth", [True, False])
def test_a_file_that_ends_in_zeros_as_after_a_crash_is_refused(tmp_path, share, smooth):
    file = io.BytesIO()
    Image.fromarray(PIXELS // 16 + np.arange(64, dtype=np.uint8)[:, None, None] * 3 if smooth else PIXELS).save(file, "PNG")
    whole = file.getvalue()
    kept = int(len(whole) * share)
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        load(written(tmp_path / "a.png", whole[:kept] + bytes(len(whole) - kept)), channels=3)


@pytest.mark.parametrize("cut", range(1, 17))
def test_a_file_that_lacks_only_what_stands_behind_its_pixels_is_read(tmp_path, cut):
    assert np.array_equal(np.asarray(load(written(tmp_path / "a.png", content()[:-cut]), channels=3)), PIXELS)


def test_a_wrong_check_sum_around_sound_pixels_costs_no_picture(tmp_path):
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS))
    header = struct.pack(">2I5B", 64, 64, 8, 2, 0, 0, 0)
    sums = [zlib.crc32, lambda data: 7]
    chunks = [(b"IHDR", header, 0), (b"IDAT", packed[:999], 1), (b"IDAT", packed[999:], 1), (b"IEND", b"", 0)]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + name + data + sums[wrong](name + data).to_bytes(4, "big") for name, data, wrong in chunks
    )
    assert np.array_equal(np.asarray(load(written(tmp_path / "a.png", file), channels=3)), PIXELS)


def test_a_file_without_a_palette_is_said_to_be_damaged(tmp_path):
    with pytest.raises(DataError, match=r"it is damaged \(AssertionError\)"):
        header = struct.pack(">2I5B", 8, 8, 8, 3, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(72))), (b"IEND", b"")]
        file = b"".join(len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks)
        load(written(tmp_path / "a.png", b"\x89PNG\r\n\x1a\n" + file), channels=3)
