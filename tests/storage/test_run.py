"""One run folder has one writer, belongs to one config, and is never half written."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from ldmctl.errors import ConfigError, DivergedError, MismatchError, Stopped
from ldmctl.storage import weights
from ldmctl.storage.lock import _take
from ldmctl.storage.record import config_of, model_file
from ldmctl.storage.run import open_run
from ldmctl.training import state as states
from ldmctl.training.engine import Engine


def record(folder):
    return json.loads((folder / "run.json").read_text())


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


# -- one writer --------------------------------------------------------------------


def test_a_second_command_gets_a_sentence_and_changes_nothing(tmp_path, tiny):
    with open_run(tmp_path, tiny("fit-ae")):
        before = contents(tmp_path)
        with pytest.raises(
            MismatchError, match=r"Another ldmctl command \(process \d+\) is writing to .*Wait for it, or name another --out"
        ):
            open_run(tmp_path, tiny("fit-ae"))
        with pytest.raises(MismatchError, match="Another ldmctl command"):
            open_run(tmp_path, tiny("fit-ae"), overwrite=True)
        assert contents(tmp_path) == before
    with open_run(tmp_path, tiny("fit-ae")) as again:
        assert again.resumed


def test_the_lock_ends_with_the_process_that_held_it(tmp_path, tiny):
    hold = "import fcntl, os, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", hold, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(MismatchError, match="Another ldmctl command"):
            open_run(tmp_path, tiny("fit-ae"))
        other.kill()
    open_run(tmp_path, tiny("fit-ae")).close("finished")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_that_outlives_the_command_holds_no_lock(tmp_path):
    script = (
        "import os, sys, time; from pathlib import Path; from ldmctl.storage.lock import _take\n"
        "lock = _take(Path(sys.argv[1])); ready, begun = os.pipe(); child = os.fork()\n"
        "if child: os.read(ready, 1); print(child, flush=True); os.kill(os.getpid(), 9)\n"
        "os.close(1); os.write(begun, b'x'); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False)
    try:
        _take(tmp_path).close()
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == -signal.SIGKILL


def test_other_ranks_hold_no_lock_and_write_nothing(tmp_path, tiny):
    with open_run(tmp_path / "run", tiny("fit-ae"), writes=False) as other:
        other.log(1, {"loss": 1.0})
        other.update(step=1)
        states.save(other.folder, {"a": torch.zeros(1)}, {"step": 1}, Engine(torch.device("cpu"), torch.float32, rank=1))
        other.note_bad([{"file_name": "a.png"}])
    assert not (tmp_path / "run").exists()


# -- one config --------------------------------------------------------------------------


def test_a_run_with_another_config_is_refused_with_the_keys_and_two_ways_on(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    before = contents(tmp_path)
    with pytest.raises(MismatchError) as caught:
        open_run(tmp_path, tiny("fit-ae", "loop.seed=5", "autoencoder.channels=7", "loop.steps=99"))
    said = str(caught.value)
    assert "loop.seed: 0 there, 5 asked for" in said and "autoencoder.channels: 3 there, 7 asked for" in said
    assert "--out" in said and "--overwrite" in said and "loop.steps" not in said
    assert caught.value.exit_code == 6 and contents(tmp_path) == before
    open_run(tmp_path, tiny("fit-ae")).close("finished")


def test_free_keys_may_change_and_are_written_down(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    words = ["loop.steps=9", "loop.report=3", "loop.micro=2", "loop.workers=0", "loop.save=7", "loop.preview=8", "loop.keep.every=5"]
    with open_run(tmp_path, tiny("fit-ae", *words, "machine.device=auto")) as run:
        assert run.resumed
    assert config_of(tmp_path)["loop"]["keep"]["every"] == 5 and config_of(tmp_path)["machine"]["device"] == "auto"


def test_a_folder_of_another_verb_is_refused(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    with pytest.raises(MismatchError, match="holds a run of fit-ae, not of fit-diffusion"):
        open_run(tmp_path, tiny("fit-diffusion"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_ours_is_refused_even_with_overwrite(tmp_path, tiny, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MismatchError, match=r"is not a run folder and holds other things \(thesis.tex\)\. Name another --out"):
        open_run(tmp_path, tiny("fit-ae"), overwrite=overwrite)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_file_is_not_a_folder(tmp_path, tiny):
    (tmp_path / "out").write_text("")
    with pytest.raises(MismatchError, match="out is a file; --out wants a folder"):
        open_run(tmp_path / "out", tiny("fit-ae"))


def test_overwrite_deletes_our_files_and_nothing_else(tmp_path, fit_ae):
    ours = fit_ae(tmp_path / "ae", "loop.keep.every=2")
    assert len(list((ours / "snapshots").iterdir())) == 3
    for name in ("notes.txt", "samples/favourite.jpg", "snapshots/notes.txt", "data/0001.png"):
        (ours / name).parent.mkdir(exist_ok=True)
        (ours / name).write_text("mine")
    fit_ae(ours, "loop.lr=5e-4", "loop.steps=1", overwrite=True)
    assert {name for name in contents(ours) if contents(ours)[name] == b"mine"} == {
        "notes.txt",
        "samples/favourite.jpg",
        "snapshots/notes.txt",
        "data/0001.png",
    }
    assert sorted(path.name for path in (ours / "snapshots").iterdir()) == ["best.safetensors", "notes.txt"]
    assert {path.name for path in (ours / "samples").glob("*.png")} == {"000000001.png", "latents.png", "verdict.png"}
    assert len((ours / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_process_that_ends_while_it_opens_the_folder_leaves_it_usable(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    (tmp_path / "config.yaml").unlink()  # run.json is the first file there and the last to go
    with open_run(tmp_path, tiny("fit-ae", "loop.seed=5")) as run:
        assert not run.resumed


# -- whole files ----------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.json"
    weights.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), weights.replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise ZeroDivisionError
    assert path.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_a_state_that_cannot_be_written_leaves_the_old_state(tmp_path):
    engine = Engine(torch.device("cpu"), torch.float32)
    states.save(tmp_path, {"a": torch.ones(2)}, {"step": 1}, engine)
    with pytest.raises(RuntimeError):
        states.save(tmp_path, {"a": torch.sparse_coo_tensor(size=(2, 2))}, {"step": 2}, engine)
    tensors, scalars = states.load(tmp_path, engine)
    assert tensors["a"].tolist() == [1, 1] and scalars == {"step": 1}
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.safetensors"
    weights.save(path, {"a": torch.ones(2)}, {"kind": "state"})
    with pytest.raises(ZeroDivisionError), weights.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        temporary.rename(tmp_path / ".state.safetensors.999.tmp")  # as a kill -9 leaves it
        raise ZeroDivisionError
    assert weights.load(path)[0]["a"].tolist() == [1, 1]


def test_equal_models_are_equal_bytes(tmp_path):
    for name in ("one", "two"):
        weights.save(tmp_path / name, {"b": torch.ones(2), "a": torch.zeros(1, 2)}, {"kind": "x", "step": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_tensors_that_share_their_memory_are_saved_each(tmp_path):
    tied = torch.ones(2, 2)
    weights.save(tmp_path / "tied", {"a": tied, "b": tied, "c": tied.t()}, {})
    assert all(torch.equal(value, tied) for value in weights.load(tmp_path / "tied")[0].values())


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "header", "ours"])
def test_a_damaged_file_is_a_mismatch_and_not_a_bug(tmp_path, damage):
    path = tmp_path / "model.safetensors"
    weights.save(path, {"a": torch.ones(100)}, {"kind": "x"})
    whole = path.read_bytes()
    path.unlink()
    left = {
        "empty": b"",
        "cut": whole[:-50],
        "text": b"# YAML?\n" * 30,
        "header": whole.replace(b'\\"kind\\"', b'\\"kind\\X'),
        "ours": whole.replace(b'\\"format\\"', b'xxxxxxxx\\"'),
    }
    if damage != "missing":
        assert left[damage] != whole
        path.write_bytes(left[damage])
    for look in (weights.load, weights.read_header):
        with pytest.raises(MismatchError, match=r"model\.safetensors"):
            look(path)


def test_a_file_of_someone_else_is_named_as_such(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    with pytest.raises(MismatchError, match="was not written by ldmctl"):
        weights.load(tmp_path / "theirs.safetensors")


def test_a_fingerprint_sees_every_bit_and_the_config():
    base = weights.fingerprint({"a": torch.zeros(2), "b": torch.ones(1)}, {"x": 1})
    others = [
        ({"a": torch.zeros(2), "b": torch.ones(1)}, {"x": 2}),
        ({"a": torch.zeros(2), "c": torch.ones(1)}, {"x": 1}),
        ({"a": torch.zeros(2, 1), "b": torch.ones(1)}, {"x": 1}),
        ({"a": torch.zeros(2, dtype=torch.int32), "b": torch.ones(1)}, {"x": 1}),
        ({"a": torch.tensor([0.0, -0.0]), "b": torch.ones(1)}, {"x": 1}),
    ]
    assert len({base, *(weights.fingerprint(*other) for other in others)}) == 6
    assert weights.fingerprint({"b": torch.ones(1), "a": torch.zeros(2)}, {"x": 1}) == base


# -- how it ended -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "finished", 0),
        (Stopped("a signal"), "stopped", 75),
        (DivergedError("NaN"), "diverged", 5),
        (ConfigError("wrong"), "failed", 2),
        (ZeroDivisionError(), "failed", 1),
        (KeyboardInterrupt(), "killed", 130),
    ],
)
def test_run_json_says_how_it_ended(tmp_path, tiny, error, status, code):
    def work():
        with open_run(tmp_path, tiny("fit-ae"), parent="cache", plugins=["autoencoder vae (ldmctl 0)"]):
            told = record(tmp_path)
            assert (told["status"], told["exit_code"], told["verb"], told["parent"]) == ("running", None, "fit-ae", "cache")
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    told = record(tmp_path)
    assert (told["status"], told["exit_code"], told["format"]) == (status, code, 1)
    assert torch.__version__.startswith(told["versions"]["torch"]) and told["command"].startswith("ldmctl")
    assert told["started"] <= told["ended"]


def test_a_mismatch_leaves_no_trace_until_something_is_saved(tmp_path, tiny):
    with open_run(tmp_path, tiny("fit-ae")) as run:
        run.update(step=3)
    before = contents(tmp_path)

    def fails(**saved):
        with pytest.raises(MismatchError), open_run(tmp_path, tiny("fit-ae")) as run:
            if saved:
                run.update(**saved)
            raise MismatchError("no")

    fails()
    assert contents(tmp_path) == before
    fails(step=5)
    assert (record(tmp_path)["step"], record(tmp_path)["status"]) == (5, "failed")


def test_reports_are_one_object_a_line(tmp_path, tiny):
    with open_run(tmp_path, tiny("fit-ae")) as run:
        for step in (1, 2, 3):
            run.log(step, {"loss": step / 2})
        run.cut_metrics(2)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 1.0},
    ]


def test_bad_pictures_are_listed_once(tmp_path, tiny):
    rows = [{"file_name": "ä.png", "reason": "cut off"}, {"file_name": "b.png", "reason": "empty"}]
    for _ in range(2):
        with open_run(tmp_path, tiny("fit-ae")) as run:
            run.note_bad([*rows, rows[0]])
            run.note_bad([])
    assert [json.loads(line) for line in (tmp_path / "bad_images.jsonl").read_text(encoding="utf-8").splitlines()] == rows


def test_a_damaged_list_of_bad_pictures_is_read_and_continued(tmp_path, tiny):
    (row, other) = ({"file_name": name, "reason": "cut off"} for name in ("a.png", "b.png"))
    with open_run(tmp_path, tiny("fit-ae")) as run:
        run.note_bad([row])
        with (tmp_path / "bad_images.jsonl").open("ab") as file:
            file.write(b'{"file_name": "\xff\n')
        run.note_bad([row, other])
        assert len(run.bad()) == 3 and [json.loads(line) for line in run.bad()[::2]] == [row, other]


# -- which weights --------------------------------------------------------------------------------


def test_a_run_names_its_model_a_step_or_the_best(tmp_path):
    names = ["model.safetensors", "snapshots/000000020.safetensors", "snapshots/best.safetensors"]
    for home in (tmp_path / "ae", tmp_path / "me@home" / "ae"):
        for name in names:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).touch()
        for suffix, name in zip(["", "@20", "@best"], names, strict=True):
            assert model_file(f"{home}{suffix}", verb="fit-ae") == home / name


def test_a_run_that_is_not_there_is_said_with_the_way_to_make_it(tmp_path):
    with pytest.raises(MismatchError, match=r"There is no run folder .*/ae\. `ldmctl fit-ae --out .*/ae` makes one, --run names another"):
        model_file(str(tmp_path / "ae"), verb="fit-ae")
    (tmp_path / "ae" / "snapshots").mkdir(parents=True)
    (tmp_path / "ae" / "snapshots" / "000000020.safetensors").touch()
    with pytest.raises(MismatchError, match=r"has no model\.safetensors\. Has `ldmctl fit-ae` been run to its first save\?"):
        model_file(str(tmp_path / "ae"), verb="fit-ae")
    for snapshot in ("30", "best", "bset", "²"):
        with pytest.raises(MismatchError, match=rf"has no snapshots/0*{snapshot}\.safetensors\. Snapshots: 000000020\."):
            model_file(f"{tmp_path / 'ae'}@{snapshot}", verb="fit-ae")


def test_a_folder_without_config_is_not_a_run(tmp_path):
    with pytest.raises(MismatchError, match=r"is not a run folder: it has no config\.yaml"):
        config_of(tmp_path)


def test_a_run_that_saved_nothing_gives_way_to_another_config(tmp_path):
    from ldmctl.config.schemas.sample import Sample
    from ldmctl.storage.run import open_run

    first, other = Sample.model_construct(run="a"), Sample.model_construct(run="b")
    with pytest.raises(RuntimeError), open_run(tmp_path / "r", first):
        raise RuntimeError("before the first save")
    with open_run(tmp_path / "r", other) as run:
        assert not run.resumed
        run.update(step=1)
    with pytest.raises(MismatchError, match="another config"):
        open_run(tmp_path / "r", first)
