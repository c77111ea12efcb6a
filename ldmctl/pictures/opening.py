"""Picture files opened under limits of our own: the pixels are what matters, whatever else a file carries.

Pillow refuses a PNG for a megabyte of text, and knows one limit on the size of a
picture, which warns before it refuses. Here text may be as large as `TEXT`; what
is more, or damaged, is left out of the file and never costs the picture. How many pixels a
picture may have is `image.max_pixels`.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, TiffImagePlugin

from ldmctl.errors import DataError

MOST = 200_000_000  # pixels, the default of image.max_pixels
TEXT = 32 << 20  # bytes of one text or profile after it is unpacked
STEP = 1 << 20  # bytes that are unpacked at once
TEXTS = 256 << 20  # of all text of a picture, which is let go with it
BROKEN = (  # what Pillow's decoders raise for broken files; a MemoryError says nothing about the file
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
    *(AssertionError, AttributeError, SystemError, struct.error, zlib.error, Image.DecompressionBombError),
)
PROGRAMS = ("EPS", "WMF", "EMF")  # formats that are drawn by running what they hold
NEEDED = (
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"iCCP",
    b"eXIf",
    b"cICP",
    b"sRGB",
    b"gAMA",
    b"cHRM",
)  # chunks of a PNG that decide how it looks
LEAST = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}  # bytes, without which Pillow refuses the file


@contextmanager
def limits(most: int = MOST) -> Iterator[None]:
    """While it lasts Pillow refuses pictures by these limits and warns of none; `most` is in pixels."""
    if [each[:3] for each in warnings.filters[:1]] != [("ignore", None, Image.DecompressionBombWarning)]:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))  # missing up to Pillow 13
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = most, TEXT, TEXTS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = before


def opened(path: str | Path) -> Image.Image:
    """A picture file as Pillow opens it, not yet decoded and of any size; DataError when it is none."""
    try:
        with limits(1 << 62):  # opening decodes nothing; `refuse_huge` looks at the size when the limit is known
            try:
                return Image.open(path)
            except (OSError, ValueError, SyntaxError):
                if (repaired := without_extras(path)) is None:
                    raise
                image = Image.open(io.BytesIO(repaired), formats=["PNG"])
                image.filename = str(path)
                return image
    except (*BROKEN, MemoryError) as error:  # a header that asks for memory lies
        raise DataError(why_not_opened(str(path), error)) from None


def why_not_opened(name: str, error: BaseException) -> str:
    """What Pillow's error says of a picture, as a sentence; of one that is too large with the key that decides it."""
    if isinstance(error, Image.DecompressionBombError):
        pixels = (re.findall(r"\d+", str(error)) or ["?"])[0]
        return f"{name} has {pixels} pixels, more than image.max_pixels allows."
    return f"{name} cannot be read as a picture: {in_words(error)}"


def decode(image: Image.Image, most: int) -> Image.Image:
    """The same image with its pixels, or one of the same file without what is broken beside them; raises one of BROKEN."""
    if image.format in PROGRAMS:
        raise ValueError(f"it is {image.format}, a drawing program and no picture")
    with limits(most):
        try:
            image.load()
        except (OSError, ValueError, SyntaxError):
            if image.format != "PNG" or (repaired := without_extras(getattr(image, "filename", ""))) is None:
                raise
            image, file = Image.open(io.BytesIO(repaired), formats=["PNG"]), getattr(image, "filename", "")
            image.load()
            image.filename = file
    if image.format == "PNG" and _is_damaged(getattr(image, "filename", "")):
        raise ValueError("its pixels are damaged: their check sum is wrong, and they cannot be unpacked to their end")
    return image


def refuse_huge(name: str, size: tuple[int, int], most: int) -> None:
    """A picture of more than `most` pixels is a DataError."""
    if size[0] * size[1] > most:
        raise DataError(f"{name} is {size[0]}x{size[1]} pixels, more than the {most:,} that image.max_pixels allows.")


def is_pillows(error: BaseException) -> bool:
    """Whether this was raised inside Pillow, so that it is about a file and not about who asked for it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__", "")).split(".")[0] == "PIL"


def in_words(error: BaseException) -> str:
    """What an error says, on one line."""
    said = re.sub(r" <[\w.]+ object at 0x[0-9a-f]+>", "", str(error))  # where a file lies in memory says nothing
    return " ".join(said.split()) or f"it is damaged ({type(error).__name__})"


def without_extras(path: Any) -> bytes | None:
    """A PNG file with only the chunks that decide how it looks, and of them only the sound ones; None where nothing can be left out."""
    try:
        content = Path(path).read_bytes() if path else b""
    except (OSError, ValueError, TypeError):
        return None
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    kept = [content[:8], *(chunk for chunk in _chunks(content) if _is_needed(chunk))]
    found = b"".join(kept)
    return found if len(found) < len(content) else None


def _chunks(content: bytes) -> Iterator[bytes]:
    """Each chunk with its length, name and checksum; the last one may be cut."""
    place = 8
    while place + 8 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        yield content[place:end]
        place = end


def _is_damaged(path: Any) -> bool:
    """Whether the pixels of a PNG file are not those that were written: Pillow leaves what follows the damage black, and says nothing."""
    try:
        content = Path(path).read_bytes() if path else b""
    except (OSError, ValueError, TypeError):
        return False
    data = [chunk for chunk in _chunks(content) if chunk[4:8] == b"IDAT" and len(chunk) == 12 + int.from_bytes(chunk[:4], "big")]
    if all(zlib.crc32(memoryview(chunk)[4:-4]) == int.from_bytes(chunk[-4:], "big") for chunk in data):
        return False
    inflater = zlib.decompressobj()
    try:  # some programs write wrong check sums around sound pixels
        for chunk in data:
            piece = chunk[8:-4]
            while piece:
                inflater.decompress(piece, STEP)
                piece = inflater.unconsumed_tail
    except zlib.error:
        return True
    return not inflater.eof


def _is_needed(chunk: bytes) -> bool:
    name, data, checksum = chunk[4:8], chunk[8:-4], chunk[-4:]
    if name not in NEEDED:
        return False
    if name[:1].isupper():
        return True  # pixels: what is wrong with them must be seen
    whole = LEAST.get(name, 0) <= len(data) == int.from_bytes(chunk[:4], "big")
    return whole and zlib.crc32(name + data) == int.from_bytes(checksum, "big") and (name != b"iCCP" or _unpacks(data))


def _unpacks(data: bytes) -> bool:
    """Whether an iCCP chunk holds a profile of bearable size."""
    packed = data.partition(b"\0")[2]
    try:
        inflater = zlib.decompressobj()
        inflater.decompress(packed[1:], TEXT)
    except zlib.error:
        return False
    return packed[:1] == b"\0" and not inflater.unconsumed_tail
