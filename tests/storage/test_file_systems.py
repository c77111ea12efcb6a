"""File systems as they are: without locks, without fsync of folders, failing, full, read-only, shared with others, deleted under a command."""

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ldmctl.cli.app import run as command
from ldmctl.config.documents import read_config
from ldmctl.config.origins import find
from ldmctl.endings import file_trouble
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.latents import manifest as manifests
from ldmctl.latents.items import read_items
from ldmctl.storage import atomic, weights
from ldmctl.storage.record import _record, model_file
from ldmctl.storage.run import open_run

TINY = Path(__file__).parents[1] / "tiny" / "fit-ae.yaml"


def record(folder):
    return json.loads((folder / "run.json").read_text())


def fails_with(number, *, only=lambda *_: True, times=10**9, then=None):
    """A function that fails with this errno for those calls, so many times, and does `then` for others."""
    left = [times]

    def call(*arguments, **options):
        if only(*arguments) and left[0] > 0:
            left[0] -= 1
            raise OSError(number, os.strerror(number), str(arguments[0]))
        return then(*arguments, **options) if then else None

    return call


def is_folder(descriptor, *_):
    return isinstance(descriptor, int) and stat.S_ISDIR(os.fstat(descriptor).st_mode)


# -- locks ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [37, 38, 95, errno.EINVAL])
def test_a_file_system_without_locks_is_said_once_and_no_reason_to_stop(tmp_path, tiny, monkeypatch, capsys, number):
    monkeypatch.setattr(fcntl, "flock", fails_with(number))
    with open_run(tmp_path / "run", tiny("fit-ae")) as run:
        run.update(step=1)
        run.update(step=2)
    said = capsys.readouterr().err
    assert said.count("has no locks") == 1 and "see to it that there is none" in said
    assert record(tmp_path / "run")["exit_code"] == 0


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_another_has_is_another_writer(tmp_path, tiny, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", fails_with(number))
    with pytest.raises(MismatchError, match="Another ldmctl command"):
        open_run(tmp_path, tiny("fit-ae"))


def test_a_lock_that_fails_as_a_disk_does_is_not_another_writer(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fails_with(errno.EIO))
    with pytest.raises(OSError) as caught:
        open_run(tmp_path, tiny("fit-ae"))
    assert "The file system does not do its work" in file_trouble(caught.value)


# -- fsync and rename --------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF])
@pytest.mark.parametrize("only", [is_folder, lambda *_: True], ids=["of folders", "of anything"])
def test_an_fsync_that_a_file_system_does_not_have_is_passed_over(tmp_path, monkeypatch, number, only):
    monkeypatch.setattr(os, "fsync", fails_with(number, only=only, then=os.fsync))
    weights.save(tmp_path / "a.safetensors", {"a": torch.ones(1)}, {"kind": "x"})
    weights.write_text(tmp_path / "b.txt", "b")
    assert weights.load(tmp_path / "a.safetensors")[0]["a"].item() == 1 and (tmp_path / "b.txt").read_text() == "b"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_is_a_sentence_and_the_last_state_is_kept(tmp_path, monkeypatch, capsys, number, call):
    words = ["fit-ae", "--config", str(TINY), "--out", str(tmp_path / "run"), "loop.save=2", "--quiet"]
    assert command([*words, "loop.steps=2"]) == 0
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    real = getattr(os, call)

    def hopeless(*arguments):
        name = os.readlink(f"/proc/self/fd/{arguments[0]}") if call == "fsync" else str(arguments[0])
        if "state.safetensors" in name:
            raise OSError(number, os.strerror(number), name)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, hopeless)
        assert command([*words, "loop.steps=4"]) == 6
    said = capsys.readouterr().err
    assert "What was saved before is intact" in said and "Traceback" not in said and "a bug" not in said
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before
    assert (record(tmp_path / "run")["status"], record(tmp_path / "run")["exit_code"]) == ("failed", 6)
    assert command([*words, "loop.steps=4"]) == 0
    assert record(tmp_path / "run")["step"] == 4


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EBUSY, errno.EACCES, errno.EPERM])
def test_a_rename_that_fails_once_is_tried_again(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "replace", fails_with(number, times=1, then=os.replace))
    weights.write_text(tmp_path / "run.json", "new")
    assert (tmp_path / "run.json").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_a_rename_whose_answer_is_lost_is_done(tmp_path, monkeypatch):
    real, calls = os.replace, []

    def lost(source, target):
        calls.append(source)
        real(source, target)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", lost)
    weights.write_text(tmp_path / "run.json", "new")
    assert (tmp_path / "run.json").read_text() == "new" and len(calls) == 2


def test_a_rename_that_keeps_failing_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    weights.write_text(tmp_path / "run.json", "old")
    monkeypatch.setattr(atomic, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(os, "replace", fails_with(errno.EIO))
    with pytest.raises(OSError):
        weights.write_text(tmp_path / "run.json", "new")
    assert (tmp_path / "run.json").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_the_end_is_written_down_on_a_disk_that_is_full_to_the_last_byte(tmp_path, tiny, monkeypatch):
    with pytest.raises(OSError), open_run(tmp_path, tiny("fit-ae")) as run:
        run.update(step=1)
        monkeypatch.setattr(os, "open", fails_with(errno.ENOSPC))  # not even an empty file
        run.update(step=2)
    assert (record(tmp_path)["status"], record(tmp_path)["exit_code"]) == ("failed", 6)


# -- rights ------------------------------------------------------------------------------


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0o027, 0o640)])
def test_files_have_the_rights_that_the_umask_leaves(tmp_path, umask, fit_ae, mask, mode):
    umask(mask)
    run = fit_ae(tmp_path / "run", "loop.keep.every=2", "tracker=csv")
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 8 and {path.suffix for path in files} >= {".safetensors", ".json", ".yaml", ".png", ".csv"}
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {path.name: oct(mode) for path in files}


def test_a_cache_and_the_runs_of_it_have_them_too(tmp_path, umask, vae_run, encode, fit_diffusion):
    umask(0o002)
    cache = encode(tmp_path / "cache", vae_run)
    run = fit_diffusion(tmp_path / "ldm", cache, "loop.keep.averages=2")
    for folder in (cache, run):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) > 6 and {path.stat().st_mode & 0o777 for path in files} == {0o664}


def test_a_downloaded_file_has_them_too(tmp_path, umask):
    from ldmctl.storage.assets import download

    (tmp_path / "source").write_bytes(b"weights")
    for mask, mode in ((0o002, 0o664), (0o077, 0o600)):
        umask(mask)
        path = download((tmp_path / "source").as_uri(), tmp_path / f"{mask}" / "weights")
        assert path.stat().st_mode & 0o777 == mode


@contextmanager
def somebody_else(folder):
    """As another user, who may enter the folder; the tests may run as root, whom nothing is refused."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.parents):
        assert path.stat().st_mode & 0o001, path
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared():
    """A folder that anybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def told(call, *arguments):
    """What the person reads when this fails."""
    with pytest.raises((LdmctlError, PermissionError)) as caught:
        call(*arguments)
    return str(caught.value) if isinstance(caught.value, LdmctlError) else file_trouble(caught.value)


def test_what_may_not_be_read_is_told_as_that(shared, vae_run, vae_cache):
    shutil.copytree(vae_run, shared / "ae")
    shutil.copytree(vae_cache, shared / "cache")
    manifest = manifests.read(shared / "cache")
    shard = manifest.splits["train"][0]
    looks = {
        "ae/model.safetensors": [
            weights.load,
            weights.read_header,
            lambda _: find(str(shared / "ae")),
        ],
        "ae/config.yaml": [lambda file: read_config(file.parent)],
        "ae/run.json": [lambda file: _record(file.parent)],
        "cache/latents.json": [lambda file: manifests.read(file.parent)],
        f"cache/{shard.file}": [lambda file: read_items(file.parent, shard)],
        f"cache/{shard.items_file}": [lambda file: read_items(file.parent, shard)],
    }
    for name, looking in looks.items():
        (shared / name).chmod(0)
        for look in looking:
            with somebody_else(shared):
                said = told(look, shared / name)
            assert f"{shared / name} may not be read by this user (owner " in said and "mode 0000" in said
            assert not re.search("missing|damaged|room|--overwrite|There is no", said)
        (shared / name).chmod(0o644)


def test_a_folder_that_may_not_be_entered_is_told_as_that(shared, vae_run):
    shutil.copytree(vae_run, shared / "ae")
    (shared / "ae").chmod(0o600)
    with somebody_else(shared):
        said = told(lambda name: model_file(name, verb="fit-ae"), str(shared / "ae"))
    assert f"the folder {shared / 'ae'} may not be entered by this user" in said


def test_a_folder_that_may_not_be_written_is_told_as_that(shared, tiny):
    open_run(shared / "run", tiny("fit-ae")).close("finished")
    (shared / "run").chmod(0o555)
    (shared / "run" / ".lock").chmod(0o444)
    config = tiny("fit-ae")
    with somebody_else(shared):
        said = told(open_run, shared / "run", config)
    assert "may not be written" in said


# -- names, and folders that go ---------------------------------------------------------------


@pytest.mark.parametrize("out", ["x" * 300, "/".join(["deep" * 50] * 30)])
def test_a_name_that_is_too_long_is_a_sentence(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    assert command(["fit-ae", "--config", str(TINY), "--out", out, "--quiet"]) in (2, 6)
    said = capsys.readouterr().err
    assert re.search("too long", said) and "Traceback" not in said


def test_a_loop_of_links_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    assert command(["fit-ae", "--config", str(TINY), "--out", "a/run", "--quiet"]) in (2, 6)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "emptied"])
def test_a_run_folder_that_goes_under_a_running_command_is_a_sentence(tmp_path, monkeypatch, capsys, how):
    folder = tmp_path / "run"
    from ldmctl.training.loop import Training

    report, seen = Training.report, []

    def go(training):
        if training.done == 2:
            seen.append(how)
            folder.rename(tmp_path / "elsewhere")
            if how != "moved":
                shutil.rmtree(tmp_path / "elsewhere")
            if how in ("replaced", "emptied"):
                folder.mkdir()
        report(training)

    monkeypatch.setattr(Training, "report", go)
    words = ["fit-ae", "--config", str(TINY), "--out", str(folder), "loop.report=2", "loop.preview=1", "loop.save=1", "--quiet"]
    assert command(words) == 6
    said = capsys.readouterr().err
    assert seen and "was deleted, moved or emptied while this command was writing to it" in said and "Traceback" not in said
    assert not folder.exists() or not list(folder.iterdir())  # nothing half made
    monkeypatch.undo()
    if how == "moved":
        (tmp_path / "elsewhere").rename(folder)
    assert command(words) == 0


def test_a_run_folder_that_goes_between_two_saves_comes_not_back_as_half_a_one(tmp_path, tiny):
    with pytest.raises(MismatchError, match="was deleted, moved or emptied"), open_run(tmp_path / "run", tiny("fit-ae")):
        shutil.rmtree(tmp_path / "run")
        weights.save(tmp_path / "run" / "state.safetensors", {"a": torch.ones(1)}, {"kind": "state"})
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_deleted_while_it_is_written_says_that_the_folder_is_being_deleted(tmp_path, tiny):
    """Whoever deletes a folder takes its files first: at this moment the folder is still there."""
    said = pytest.raises(MismatchError, match="was deleted, moved or emptied")
    with said, open_run(tmp_path / "run", tiny("fit-ae")) as run, weights.replacing(run.folder / "run.json") as temporary:
        temporary.unlink()
    with pytest.raises(FileNotFoundError), open_run(tmp_path / "other", tiny("fit-ae")) as run:
        (run.folder / "no-such.txt").read_text()
