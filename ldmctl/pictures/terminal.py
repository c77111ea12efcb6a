"""A picture in the terminal: as itself where kitty's or iTerm2's way of drawing, or sixels, are known to work, else as blocks of two pixels each.

What a terminal can do is known from what it says of itself in the environment; it is never asked, so that nothing is read from the keyboard.
"""

import base64
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from ldmctl.console import Console

SIDE = 1024  # pixels that are sent to a terminal that draws them itself, at most, each way
PIECE = 4096  # characters that kitty takes at once
SCREENS = 2  # that blocks may fill, one below the other
SIXELS = ("foot", "mlterm", "contour", "yaft")  # what TERM begins with in terminals that draw sixels
MULTIPLEXERS = ("tmux", "screen")  # pass on text and colours, and swallow pictures


def way(environment: Mapping[str, str]) -> str:
    """`kitty`, `iterm2`, `sixel` or `blocks`: what the terminal of this environment is known to draw."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(MULTIPLEXERS):
        return "blocks"
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "sixel" if term.startswith(SIXELS) or program in ("mintty", "contour") else "blocks"


def draws(console: Console) -> bool:
    """Whether pictures can be drawn where `console` speaks; a sentence where that is no terminal, or one without colours."""
    terminal = console.terminal
    if console.quiet:
        return False
    if not (terminal.is_terminal and sys.stderr.isatty()):
        console.say("--preview draws on a terminal only, and this output is none.")
        return False
    if terminal.is_dumb_terminal or terminal.color_system in (None, "standard"):
        console.say("--preview needs a terminal with 256 colours or more, and this one says it has none (TERM, COLORTERM, NO_COLOR).")
        return False
    return True


def show(file: Path, console: Console) -> None:
    """Draw a picture where `console` speaks, if it can be drawn there."""
    terminal = console.terminal
    if not draws(console):
        return
    with Image.open(file) as opened:
        image = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")).convert("RGB")
    drawn = way(os.environ)
    if drawn == "blocks":
        for line in blocks(image, terminal.width, 2 * SCREENS * terminal.height):
            terminal.print(line)
        return
    image.thumbnail((SIDE, SIDE))
    terminal.file.write((sixel(image) if drawn == "sixel" else kitty(_png(image)) if drawn == "kitty" else iterm2(_png(image))) + "\n")
    terminal.file.flush()


def blocks(image: Image.Image, width: int, height: int) -> Iterator[Text]:
    """Lines of upper half blocks: each character is two pixels, one above the other, of the RGB picture made to fit `width` x `height`."""
    scale = min(1, width / image.width, height / image.height)
    if scale < 1:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)
    pixels = image.load()
    for top in range(0, image.height, 2):
        line = Text(no_wrap=True)
        for left in range(image.width):
            below = Color.from_rgb(*pixels[left, top + 1]) if top + 1 < image.height else None  # type: ignore[index,misc]
            line.append("▀", Style(color=Color.from_rgb(*pixels[left, top]), bgcolor=below))  # type: ignore[index,misc]
        yield line


def kitty(png: bytes) -> str:
    """What kitty draws: a PNG in pieces, the last of which says that it is (https://sw.kovidgoyal.net/kitty/graphics-protocol/)."""
    data = base64.b64encode(png).decode()
    pieces = [data[first : first + PIECE] for first in range(0, len(data), PIECE)]
    heads = ["a=T,f=100,m={}" if number == 0 else "m={}" for number in range(len(pieces))]
    last = len(pieces) - 1
    return "".join(
        f"\x1b_G{head.format(int(number < last))};{piece}\x1b\\" for number, (head, piece) in enumerate(zip(heads, pieces, strict=True))
    )


def iterm2(png: bytes) -> str:
    """What iTerm2 draws: a file that stands in the line (https://iterm2.com/documentation-images.html)."""
    return f"\x1b]1337;File=inline=1;size={len(png)}:{base64.b64encode(png).decode()}\x07"


def sixel(image: Image.Image) -> str:
    """What DEC's terminals drew: rows of six pixels, colour by colour, of 256 at most (https://vt100.net/docs/vt3xx-gp/chapter14.html)."""
    paletted = image.quantize(256, dither=Image.Dither.NONE)
    pixels, palette = np.asarray(paletted), np.asarray(paletted.getpalette()).reshape(-1, 3) * 100 // 255
    colours = "".join(f"#{number};2;{palette[number][0]};{palette[number][1]};{palette[number][2]}" for number in np.unique(pixels))
    bands = []
    for top in range(0, image.height, 6):
        band = pixels[top : top + 6]
        places = 1 << np.arange(len(band))[:, None]
        rows = {number: bytes(63 + ((band == number) * places).sum(0).astype(np.uint8)).decode() for number in np.unique(band)}
        bands.append("$".join(f"#{number}{re.sub(REPEATED, _repeated, row)}" for number, row in rows.items()))
    return f'\x1bP0;1;0q"1;1;{image.width};{image.height}{colours}{"-".join(bands)}\x1b\\'


REPEATED = re.compile(r"(.)\1{3,}")


def _repeated(found: re.Match[str]) -> str:
    return f"!{len(found[0])}{found[1]}"


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
