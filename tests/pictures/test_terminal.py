"""A picture in the terminal: what is drawn where, and never where nobody looks."""

import base64
import io
import re

import pytest
from PIL import Image
from rich import console as rich_console

from ldmctl.console import Console
from ldmctl.pictures import terminal


@pytest.fixture
def picture(tmp_path):
    """Two rows of red over one of blue, and green at the right."""
    image = Image.new("RGB", (3, 3), (255, 0, 0))
    for place, colour in {(0, 2): (0, 0, 255), (1, 2): (0, 0, 255), (2, 0): (0, 128, 0)}.items():
        image.putpixel(place, colour)
    image.save(tmp_path / "grid.png")
    return tmp_path / "grid.png"


def shown(picture, monkeypatch, width=80, terminal_like=True, color="truecolor", quiet=False, **environment):
    """What `show` writes to a terminal of this environment."""
    for name in ("TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal_like, raising=False)
    out, console = io.StringIO(), Console(quiet=quiet)
    console.terminal = rich_console.Console(
        file=out, force_terminal=terminal_like, width=width, height=24, color_system=color, soft_wrap=True, highlight=False
    )
    terminal.show(picture, console)
    return out.getvalue()


def test_half_blocks_have_the_colours_of_the_two_pixels_in_them(picture, monkeypatch):
    lines = shown(picture, monkeypatch).splitlines()
    assert [line.count("▀") for line in lines] == [3, 3]
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m▀") and "\x1b[38;2;0;128;0;48;2;255;0;0m▀" in lines[0]
    assert lines[1].startswith("\x1b[38;2;0;0;255m▀"), "below the last row there is nothing to colour"


def test_a_large_picture_is_made_to_fit_the_terminal(tmp_path, monkeypatch):
    Image.new("RGB", (400, 100)).save(tmp_path / "wide.png")
    Image.new("RGB", (10, 1000)).save(tmp_path / "high.png")
    wide = shown(tmp_path / "wide.png", monkeypatch, width=40).splitlines()
    assert len(wide) == 5 and {line.count("▀") for line in wide} == {40}
    assert len(shown(tmp_path / "high.png", monkeypatch).splitlines()) == 48, "two screens of 24 lines"


@pytest.mark.parametrize("size", [(3, 3), (40, 13), (7, 6)])
def test_sixels_draw_the_picture(tmp_path, monkeypatch, size):
    image = Image.linear_gradient("L").resize(size).point(lambda value: value // 64 * 85).convert("RGB")
    image.putpixel((size[0] - 1, size[1] - 1), (255, 0, 0))
    image.save(tmp_path / "picture.png")
    said = shown(tmp_path / "picture.png", monkeypatch, TERM="foot")
    body = re.fullmatch(r'\x1bP0;1;0q"1;1;(\d+);(\d+)(.*)\x1b\\\n', said, re.S)
    assert (int(body[1]), int(body[2])) == size
    palette = {int(n): [int(each) for each in values.split(";")] for n, values in re.findall(r"#(\d+);2;([\d;]+)", body[3])}
    drawn = Image.new("RGB", size)
    for band, rows in enumerate(re.sub(r"#\d+;2;[\d;]+", "", body[3]).split("-")):
        for row in rows.split("$"):
            number, cells = re.fullmatch(r"#(\d+)(.*)", row).groups()
            cells = re.sub(r"!(\d+)(.)", lambda found: found[2] * int(found[1]), cells)
            assert len(cells) == size[0]
            for x, cell in enumerate(cells):
                for bit in range(6):
                    if (ord(cell) - 63) >> bit & 1:
                        drawn.putpixel((x, 6 * band + bit), tuple(round(each * 2.55) for each in palette[int(number)]))
    gaps = [abs(a - b) for one, other in zip(drawn.getdata(), image.getdata(), strict=True) for a, b in zip(one, other, strict=True)]
    assert max(gaps) <= 3, "colours are in percent"


def test_kitty_gets_the_png_in_pieces_and_iterm_as_a_file(tmp_path, monkeypatch):
    Image.effect_noise((200, 200), 80).save(tmp_path / "noise.png")
    said = shown(tmp_path / "noise.png", monkeypatch, TERM="xterm-kitty")
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", said)
    assert pieces[0][0] == "a=T,f=100,m=1" and {head for head, _ in pieces[1:-1]} <= {"m=1"} and pieces[-1][0] == "m=0"
    assert len(pieces) > 2 and all(len(data) <= 4096 for _, data in pieces)
    assert Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces)))).size == (200, 200)
    said = shown(tmp_path / "noise.png", monkeypatch, TERM_PROGRAM="iTerm.app")
    size, data = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):(.*)\x07\n", said).groups()
    assert len(base64.b64decode(data)) == int(size)


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "mintty"}, "sixel"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux"}, "blocks"),
        ({"TERM": "screen.xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "vscode"}, "blocks"),
        ({}, "blocks"),
    ],
)
def test_only_what_a_terminal_is_known_to_draw_is_sent_to_it(environment, drawn):
    assert terminal.way(environment) == drawn


def test_nothing_is_drawn_where_no_terminal_is_or_none_with_colours_or_nobody_wants_to_hear(picture, monkeypatch):
    assert shown(picture, monkeypatch, terminal_like=False) == "--preview draws on a terminal only, and this output is none.\n"
    for without in ({"color": None}, {"color": "standard"}, {"TERM": "dumb"}):
        said = shown(picture, monkeypatch, **without)
        assert "--preview needs a terminal with 256 colours or more" in said and "▀" not in said
    assert shown(picture, monkeypatch, quiet=True) == ""


def test_a_transparent_picture_is_shown_on_white(tmp_path, monkeypatch):
    Image.new("RGBA", (1, 1), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert "38;2;255;255;255" in shown(tmp_path / "clear.png", monkeypatch)
