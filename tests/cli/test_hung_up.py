"""A terminal that is closed while a command runs, and a reader that goes away: what was done is saved, or the work goes on unheard."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from ldmctl.console import Console
from ldmctl.signals import Signals, asking

pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

TINY = Path(__file__).parents[1] / "tiny" / "fit-ae.yaml"
SOON = ["loop.save=5", "loop.report=5"]


def fit_ae(out, *words):
    return [sys.executable, "-m", "ldmctl", "fit-ae", "--config", str(TINY), "--out", str(out), *SOON, *words]


def await_state(out, process):
    end = time.monotonic() + 90
    while not (out / "state.safetensors").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before its terminal was closed"


@contextmanager
def in_a_terminal(words, *, ignoring=False):
    """A command whose terminal is closed at the end of the context, as a window's or that of a lost ssh."""
    ours, theirs = pty.openpty()

    def settle():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        signal.signal(
            signal.SIGHUP, signal.SIG_IGN if ignoring else signal.SIG_DFL
        )  # nohup, and a shell's disown, or not, whatever runs this

    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, preexec_fn=settle)  # noqa: PLW1509
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        yield process
    finally:
        os.close(ours)


def record(out):
    return json.loads((out / "run.json").read_text())


@pytest.mark.parametrize("words", [["loop.workers=2"], pytest.param(["--json", "loop.workers=0"], marks=pytest.mark.slow)])
def test_a_closed_terminal_stops_a_training_with_everything_saved(tmp_path, words):
    with in_a_terminal(fit_ae(tmp_path / "run", "loop.steps=1000000", *words)) as process:
        await_state(tmp_path / "run", process)
    assert process.wait(60) == 75
    found = record(tmp_path / "run")
    assert (found["status"], found["exit_code"]) == ("stopped", 75) and found["step"] >= 5
    assert not [file.name for file in (tmp_path / "run").rglob("*.tmp")]


@pytest.mark.slow
@pytest.mark.parametrize("ignoring", [False, True])
def test_so_it_does_a_training_on_two_devices_unless_hangups_are_ignored(tmp_path, ignoring):
    words = fit_ae(tmp_path / "run", f"loop.steps={40 if ignoring else 1000000}", "loop.workers=1", "--devices", "2")
    with in_a_terminal(words, ignoring=ignoring) as process:
        await_state(tmp_path / "run", process)
    assert process.wait(180) == (0 if ignoring else 75)
    assert record(tmp_path / "run")["status"] == ("finished" if ignoring else "stopped")


@pytest.mark.slow
def test_a_training_that_ignores_hangups_ends_without_its_terminal(tmp_path):
    with in_a_terminal(fit_ae(tmp_path / "run", "loop.steps=40", "loop.workers=2"), ignoring=True) as process:
        await_state(tmp_path / "run", process)
    assert process.wait(120) == 0
    assert (record(tmp_path / "run")["status"], record(tmp_path / "run")["step"]) == ("finished", 40)


@pytest.mark.parametrize("words", [[], pytest.param(["--json"], marks=pytest.mark.slow)])
def test_a_reader_that_goes_away_ends_no_training(tmp_path, words):
    """`2>&1 | head`, a `tee` that was killed, an ssh without a terminal."""
    command = fit_ae(tmp_path / "run", "loop.steps=30", "loop.workers=0", *words)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    await_state(tmp_path / "run", process)
    process.stdout.close()
    assert process.wait(120) == 0
    assert record(tmp_path / "run")["status"] == "finished"


def test_what_nobody_reads_is_no_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        console = Console()
        for say in (console.say, console.warn, console.say):
            say("a word")
        assert console.terminal.file.write("another") == 7


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hangup_that_is_ignored_stays_ignored(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        assert (signal.SIGHUP in asking()) is not ignored
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGUSR1 if ignored else signal.SIGHUP)
            assert signals.asked
            assert (signal.getsignal(signal.SIGHUP) == signal.SIG_IGN) is ignored
    finally:
        signal.signal(signal.SIGHUP, before)
