"""run.json tells what every command did to a run, and with which exit code it ended."""

import errno
import json
import os

import pytest
import torch

from ldmctl.endings import exit_code
from ldmctl.errors import ConfigError, DataError, DivergedError, MemoryShortage, MissingError, PluginError, Stopped
from ldmctl.storage import history
from ldmctl.storage.run import open_run


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_each_command_that_worked_on_a_run_has_an_entry(tmp_path, tiny):
    with open_run(tmp_path, tiny("fit-ae"), plugins=["autoencoder vae (ldmctl 0)"]) as run:
        run.update(step=3)
    with pytest.raises(Stopped), open_run(tmp_path, tiny("fit-ae")) as run:
        run.update(step=5)
        raise Stopped("a signal")
    first, second = record(tmp_path)["history"]
    assert (first["from_step"], first["to_step"], first["status"], first["exit_code"]) == (0, 3, "finished", 0)
    assert (second["from_step"], second["to_step"], second["status"], second["exit_code"]) == (3, 5, "stopped", 75)
    assert first["plugins"] == ["autoencoder vae (ldmctl 0)"] and second["plugins"] == []
    assert first["command"].startswith("ldmctl") and "torch" in first["versions"]
    assert first["started"] <= first["ended"] <= second["started"] <= second["ended"]
    open_run(tmp_path, tiny("fit-ae"), overwrite=True).close("finished")
    assert len(record(tmp_path)["history"]) == 1


def test_what_a_command_changes_is_written_down_with_its_entry(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    with open_run(tmp_path, tiny("fit-ae")) as run:
        run.note_change({"loop.lr": [1e-3, 1e-4]})
        run.note_change({"loop.batch": [4, 8]})
    first, second = record(tmp_path)["history"]
    assert "changes" not in first and second["changes"] == {"loop.lr": [1e-3, 1e-4], "loop.batch": [4, 8]}


def test_a_record_from_before_there_was_a_history_tells_of_its_last_command(tmp_path, tiny):
    with open_run(tmp_path, tiny("fit-ae")) as run:
        run.update(step=7)
    old = record(tmp_path)
    del old["history"]
    (tmp_path / "run.json").write_text(json.dumps(old))
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    first, second = record(tmp_path)["history"]
    assert first["command"] == old["command"] and (first["to_step"], second["from_step"]) == (7, 7)


def test_a_command_that_was_killed_is_said_to_be_so_by_the_next_one(tmp_path, tiny):
    run = open_run(tmp_path, tiny("fit-ae"))
    run.update(step=2)
    run._hold.release()  # as kill -9 leaves it
    assert record(tmp_path)["history"][-1]["status"] == "running"
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    assert [entry["status"] for entry in record(tmp_path)["history"]] == ["killed", "finished"]


def test_the_history_stays_small():
    kept = {}
    for number in range(history.KEPT + 5):
        kept = {"command": f"ldmctl {number}", "history": history.begin({"command": f"ldmctl {number}"}, history.entries(kept))}
    assert len(kept["history"]) == history.KEPT and kept["history"][-1]["command"] == f"ldmctl {history.KEPT + 4}"


def test_a_damaged_history_is_no_reason_to_refuse_a_run():
    assert history.entries({"history": ["?", {"status": "finished"}]}) == [{"status": "finished"}]
    assert history.entries({"history": 7, "command": "ldmctl"})[0]["command"] == "ldmctl"
    assert history.entries({}) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 2),
        (DataError("no pictures"), 3),
        (MissingError("no weights"), 4),
        (PluginError("broken"), 4),
        (DivergedError("NaN"), 5),
        (OSError(errno.ENOSPC, "No space left on device"), 6),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 6),
        (OSError(errno.EROFS, "Read-only file system"), 6),
        (PermissionError(errno.EACCES, "Permission denied"), 6),
        (OSError(errno.EIO, "Input/output error"), 6),
        (OSError(errno.ESTALE, "Stale file handle"), 6),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), 6),
        (OSError(errno.ENAMETOOLONG, "File name too long"), 6),
        (MemoryShortage("no room"), 7),
        (MemoryError(), 7),
        (torch.OutOfMemoryError("CUDA out of memory"), 7),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 7),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 7),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 7),
        (Stopped("a signal"), 75),
        (ZeroDivisionError(), 1),
        (KeyError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_record_has_the_exit_code_that_the_shell_sees(tmp_path, tiny, monkeypatch, capsys, error, code):
    from ldmctl.cli import app

    def ends(**_):
        with open_run(tmp_path / "run", tiny("fit-ae")) as run:
            run.update(step=1)
            raise error

    monkeypatch.setattr(app, "app", ends)
    assert app.run(["fit-ae"]) == code if code != 130 else exit_code(error) == code
    if code == 130:
        with pytest.raises(KeyboardInterrupt):
            ends()
    told = record(tmp_path / "run")
    assert (told["exit_code"], told["history"][-1]["exit_code"]) == (code, code)
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


def test_an_error_while_the_folder_is_opened_is_recorded_too(tmp_path, tiny, monkeypatch):
    rename = os.replace

    def refused(source, target):
        if str(target).endswith("config.yaml"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return rename(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="No space left"):
        open_run(tmp_path, tiny("fit-ae"))
    assert (record(tmp_path)["status"], record(tmp_path)["exit_code"]) == ("failed", 6)


def test_a_clock_that_goes_back_ends_no_command_before_it_began(tmp_path, tiny):
    run = open_run(tmp_path, tiny("fit-ae"))
    run.record["history"][-1]["started"] = "2999-01-01T00:00:00+00:00"
    run.close("finished")
    told = record(tmp_path)
    assert told["ended"] == told["history"][-1]["ended"] == "2999-01-01T00:00:00+00:00"


def test_a_command_of_several_processes_has_one_exit_code(tmp_path, tiny):
    """The first process may have lost the others, or have been killed; the shell sees what the one says that knows why."""
    since = history.now()
    with pytest.raises(RuntimeError), open_run(tmp_path, tiny("fit-ae")):
        raise RuntimeError("connection closed by peer")
    history.settle(tmp_path, 7, since=since)
    told = record(tmp_path)
    assert (told["status"], told["exit_code"], told["history"][-1]["exit_code"]) == ("failed", 7, 7)
    run = open_run(tmp_path, tiny("fit-ae"))
    run._hold.release()  # killed
    history.settle(tmp_path, 75, since=since)
    assert (record(tmp_path)["status"], record(tmp_path)["exit_code"]) == ("stopped", 75)


def test_a_record_of_an_earlier_command_stays_as_it_is(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    before = (tmp_path / "run.json").read_text()
    history.settle(tmp_path, 6, since="2999-01-01T00:00:00+00:00")
    assert (tmp_path / "run.json").read_text() == before
    (tmp_path / "run.json").write_text("{")
    history.settle(tmp_path, 6, since="")
    history.settle(tmp_path / "nowhere", 6, since="")
    assert (tmp_path / "run.json").read_text() == "{"
