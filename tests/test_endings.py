"""What is printed when a process ends is what a person needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from ldmctl.cli.app import run

SHARER = """
import sys
from pathlib import Path
from ldmctl.endings import hush_half_handovers

hush_half_handovers()
code = compile("raise EOFError('half a connection')", {file!r}, "exec")
try:
    exec(code)
except EOFError:
    kind, error, trace = sys.exc_info()
    sys.excepthook(kind, error, trace.tb_next)
"""


def said(file):
    return subprocess.run([sys.executable, "-c", SHARER.format(file=file)], capture_output=True, text=True, check=True).stderr


def test_a_half_handover_of_a_killed_decoding_process_prints_no_traceback():
    assert said("/usr/lib/python3/multiprocessing/resource_sharer.py") == ""


def test_any_other_traceback_is_printed():
    assert "EOFError: half a connection" in said("/usr/lib/python3/multiprocessing/connection.py")


@pytest.mark.parametrize(
    "words", [["fit-ae", "--data", "~nobody-here/x"], ["fit-ae", "--data", "shapes", "--out", "~nobody-here/x", "--dry-run"]]
)
def test_a_user_without_a_home_is_a_sentence(words, capsys):
    assert run(words) == 2
    assert "begins with ~" in capsys.readouterr().err


def test_a_file_that_goes_while_a_command_runs_is_a_sentence_with_its_name(monkeypatch, capsys):
    monkeypatch.setattr("ldmctl.stages.encode_dataset.encode_dataset", lambda *_, **__: Path("ae/model.safetensors").read_bytes())
    assert run(["encode-dataset", "--run", "ae", "data=shapes"]) == 6
    assert "ae/model.safetensors is gone: it was deleted or moved" in (said := capsys.readouterr().err) and "Traceback" not in said
