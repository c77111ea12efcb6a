"""Pictures put inside of a page: small ones as they are, large ones made smaller, and no more than a page can carry."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ldmctl.evaluation.report.parts import Figure
from ldmctl.pictures.png_text import made_by

ROOM = 3_200_000  # bytes of pictures in a page: a third more as text, so that it stays below 5 MB
AS_IT_IS = 120_000  # bytes of a file that is not made smaller
SIDE = 1400  # pixels of a picture at most
QUALITY = 82
SHOWN = 270  # pixels that a small picture is shown wide, at least
TIMES = 3  # that it is enlarged at most
SLIDES = 40  # through time


@dataclass
class Album:
    """The pictures of a page, and the room that is left; `lost` says why some are not in it."""

    room: int = ROOM
    lost: list[str] = field(default_factory=list)
    left_out: int = 0

    def add(self, file: Path, alt: str, caption: str = "", *, side: int = SIDE, shown: int = SHOWN) -> Figure | None:
        """A file as a picture of the page; None where it cannot be read, or where there is no room."""
        try:
            data, kind, width, height = packed(file, side)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            self.lost.append(f"{file} cannot be shown: {getattr(error, 'strerror', None) or 'it is damaged, or no picture'}.")
            return None
        if len(data) > self.room:
            self.left_out += 1
            return None
        self.room -= len(data)
        uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        return Figure(uri, width, height, alt, caption, max(1, min(TIMES, shown // max(width, 1))))

    def sentences(self) -> list[str]:
        """What is not in the page, and why."""
        few = f"{self.left_out:,} pictures are left out, so that this page stays below 5 MB." if self.left_out else ""
        return [*self.lost, *([few] if few else [])]


def packed(file: Path, side: int) -> tuple[bytes, str, int, int]:
    """(bytes, kind, width, height) of a picture that browsers show: as it is where it is small, else at most `side` pixels wide and high."""
    raw = file.read_bytes()
    with Image.open(io.BytesIO(raw)) as opened:
        width, height = opened.size
        known = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "GIF": "gif"}.get(opened.format or "")
        opened.load()  # one that breaks off is none
        if known and len(raw) <= AS_IT_IS and max(width, height) <= side:
            return raw, known, width, height
        image = opened.convert("RGBA" if "A" in opened.getbands() or "transparency" in opened.info else "RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if image.mode == "RGBA":
        image.save(out, "PNG", optimize=True)
        return out.getvalue(), "png", *image.size
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue(), "jpeg", *image.size


def previews(folder: Path, album: Album, what: str, *, most: int = SLIDES) -> list[Figure]:
    """At most so many of the pictures that a run made while it learned, evenly, the last one among them."""
    files = sorted(file for file in folder.glob("[0-9]*.png") if file.stem.isdecimal())
    count = min(most, len(files))
    chosen = [files[(index + 1) * len(files) // count - 1] for index in range(count)]
    found = [album.add(file, f"{what} at step {int(file.stem):,}", f"step {int(file.stem):,}") for file in chosen]
    return [each for each in found if each is not None]


def said_below(file: Path) -> str:
    """What a sheet of ldmctl says of its rows."""
    return made_by(file, "Description") or ""
