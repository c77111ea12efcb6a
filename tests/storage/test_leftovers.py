"""What a killed process left half written goes with the next write of the same file, and nothing else does."""

import os
import subprocess

import pytest

from ldmctl.storage import leftovers
from ldmctl.storage.atomic import write_text


@pytest.fixture
def gone():
    """The number of a process that was and is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_write_deletes_what_a_killed_process_left_of_the_same_file_alone(tmp_path, gone):
    here = leftovers.machine()
    half = {
        f".report.html.{here}.{gone}.tmp": False,
        f".other.html.{here}.{gone}.tmp": True,  # of another file
        f".report.html.{here}.{os.getppid()}.tmp": True,  # of a process that runs
        f".report.html.0123abcd.{gone}.tmp": True,  # of another machine
        ".report.html.0123abcd.77.tmp": False,  # of it, a day ago
        ".report.html.tmp": True,  # somebody's
        f"report.html.{here}.{gone}.tmp": True,
        ".hidden": True,
    }
    for name in half:
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / ".report.html.0123abcd.77.tmp", (1e9, 1e9))
    write_text(tmp_path / "report.html", "whole")
    assert {name: (tmp_path / name).exists() for name in half} == half
    assert (tmp_path / "report.html").read_text() == "whole"


def test_a_folder_is_swept_of_all_that_was_half_written_in_it(tmp_path, gone):
    names = [f".{name}.{leftovers.machine()}.{gone}.{ending}" for name, ending in (("a.png", "part"), ("b.c.safetensors", "tmp"))]
    for name in [*names, "a.png"]:
        (tmp_path / name).write_text("half")
    leftovers.sweep(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    leftovers.sweep(tmp_path / "not there")


def test_a_file_that_is_being_written_is_known_by_machine_and_process(tmp_path):
    name = leftovers.unfinished(tmp_path / "model.safetensors", "tmp").name
    assert name == f".model.safetensors.{leftovers.machine()}.{os.getpid()}.tmp"
