"""On a terminal the progress line of a training carries the curve of its loss so far."""

import os
import re
import sys

import pytest

from ldmctl.console import Console

pty = pytest.importorskip("pty")


def test_a_terminal_sees_the_curve_of_the_loss_and_a_pipe_does_not(monkeypatch, capsys):
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Console().bar("fit-ae step", 30) as bar:
            for done, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
                bar.advance(done)
                bar.report({"loss": loss, "psnr": 20.0 + loss}, rate=5.0)
        terminal.flush()
        said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert re.search(r"█▁▅ loss 2\s+psnr 22", said), said
    monkeypatch.undo()
    with Console().bar("fit-ae step", 30) as bar:
        bar.report({"loss": 3.0}, rate=5.0)
    said = capsys.readouterr().err
    assert "loss 3" in said and "▁" not in said
