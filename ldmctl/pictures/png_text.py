"""What ldmctl wrote into a PNG of how it was made, and whether the file is whole: read from its chunks, without decoding a pixel."""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

KEY = "ldmctl"  # of the PNG text
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 2**24  # bytes of a chunk before the pixels that are still looked into


class Said(NamedTuple):
    """The text under a key, None in files of others, whether every chunk is there as it was written, and the sides, (height, width)."""

    text: str | None
    whole: bool
    sides: tuple[int, int] = (0, 0)  # pixels


def said_by(file: Path, key: str = KEY) -> Said:
    """Text, wholeness and sides of a PNG, by the lengths and check sums of its chunks; of a file that cannot be read, nothing."""
    try:
        data = file.read_bytes()
    except OSError:
        return Said(None, False)
    if data[:8] != SIGNATURE:
        return Said(None, False)
    place, text, sides = 8, None, (0, 0)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if kind == b"IHDR" and length >= 8 and len(data) >= place + 16:
            sides = struct.unpack_from(">II", data, place + 8)[::-1]
        if kind in (b"tEXt", b"iTXt") and text is None and length <= LARGEST and end <= len(data):
            text = _text(key, kind, data[place + 8 : end - 4])
        if end > len(data) or zlib.crc32(memoryview(data)[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return Said(text, False, sides)
        if kind == b"IEND":
            return Said(text, True, sides)
        place = end
    return Said(text, False, sides)


def made_by(file: Path, key: str = KEY) -> str | None:
    """What ldmctl wrote into a PNG, read up to its pixels, so of a file that was cut off too; None for other files."""
    try:
        with file.open("rb") as opened:
            if opened.read(8) != SIGNATURE:
                return None
            while len(head := opened.read(8)) == 8:
                length, kind = struct.unpack(">I4s", head)
                if kind in (b"IDAT", b"IEND") or length > LARGEST:
                    return None
                data = opened.read(length + 4)
                said = _text(key, kind, data[:length])
                if said is not None and len(data) == length + 4:
                    return said
    except OSError:
        pass
    return None


def breaks_off(file: Path) -> bool:
    """Whether a PNG ends before its first pixel, as one that was cut off while it was written; such a file holds no picture of anybody."""
    try:
        with file.open("rb") as opened:
            if (begin := opened.read(8)) != SIGNATURE:
                return SIGNATURE.startswith(begin)
            while len(head := opened.read(8)) == 8:
                length, kind = struct.unpack(">I4s", head)
                if kind == b"IDAT" or length > LARGEST:
                    return False
                if len(opened.read(length + 4)) < length + 4:
                    return True
    except OSError:
        return False
    return True


def _text(key: str, kind: bytes, data: bytes) -> str | None:
    """What a PNG's chunk says under a key."""
    found, _, rest = data.partition(b"\0")
    if found != key.encode():
        return None
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"iTXt" and len(rest) > 2:
        return rest[2:].split(b"\0", 2)[-1].decode("utf-8", "replace")  # after a language and a translated key
    return None
