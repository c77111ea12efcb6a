"""On a terminal the progress line of a training carries the curve of its loss so far, and previews are drawn where that is asked for."""

import os
import re
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from ldmctl.cli.app import run
from ldmctl.console import Console

TINY = Path(__file__).parent.parent / "tiny" / "fit-ae.yaml"
pty = pytest.importorskip("pty")


@contextmanager
def terminal(monkeypatch):
    """stderr is a terminal meanwhile -> a list that has what was written to it as its one text afterwards."""
    ours, theirs = pty.openpty()
    for name, value in {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    parts, said = [], []
    listener = threading.Thread(target=lambda: parts.extend(iter(lambda: read(ours), b"")))
    listener.start()
    with os.fdopen(theirs, "w") as opened, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", opened)
        yield said
    listener.join()
    os.close(ours)
    said.append(b"".join(parts).decode())


def read(terminal):
    """What was written to a terminal; nothing once nobody has it open."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_a_terminal_sees_the_curve_of_the_loss(monkeypatch):
    with terminal(monkeypatch) as said, Console().bar("fit-ae step", 30) as bar:
        for done, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
            bar.advance(done)
            bar.report({"loss": loss, "psnr": 20.0 + loss}, rate=5.0)
    assert re.search(r"█▁▅ loss 2\s+psnr 22", said[0]), said


def test_a_pipe_sees_numbers_alone(capsys):
    with Console().bar("fit-ae step", 30) as bar:
        bar.report({"loss": 3.0}, rate=5.0)
    said = capsys.readouterr().err
    assert "loss 3" in said and "▁" not in said


def test_a_picture_is_drawn_above_the_bar_which_goes_on(monkeypatch, tmp_path):
    drawn = []
    with terminal(monkeypatch) as said:
        console = Console()
        console.draw = drawn.append
        with console.bar("fit-ae step", 30) as bar:
            bar.picture(tmp_path / "1.png")
            bar.report({"loss": 1.5}, rate=5.0)
    assert drawn == [tmp_path / "1.png"] and "loss 1.5" in said[0]
    with Console().bar("fit-ae step", 30) as bar:
        bar.picture(tmp_path / "1.png")  # nobody asked for it
    assert len(drawn) == 1


@pytest.mark.slow
def test_a_training_draws_its_previews_where_that_is_asked_for(monkeypatch, tmp_path):
    words = ["fit-ae", "--data", "shapes", "--config", str(TINY), "--device", "cpu", "loop.steps=1", "loop.preview=1"]
    for out, more in (("drawn", ["--preview"]), ("plain", [])):
        with terminal(monkeypatch) as said:
            assert run([*words, "--out", str(tmp_path / out), *more]) == 0
        found = said[0]
        assert "validation at step 1" in found
        assert (found.count("▀") > 20 and found.index("▀") < found.index("validation at step 1")) if more else "▀" not in found
