"""Two processes with half the batch each learn what one process learns."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from two_ranks import start, together

from ldmctl.cli import ranks
from ldmctl.cli.app import run
from ldmctl.cli.ranks import launched
from ldmctl.pictures.loading import open_pictures, training_batches
from ldmctl.storage import weights
from ldmctl.training.engine import Engine
from ldmctl.training.order import batch_items


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row], [row["diffusion/gradient"] for row in rows if "loss" in row]


def state(run):
    return weights.load(run / "state.safetensors")[0]


@pytest.fixture(scope="module")
def words():
    """Of a run whose steps are small enough for rounding not to grow."""
    return ["loop.steps=5", "loop.lr=1e-4", "loop.warmup=1", "loop.clip=null", "preview.count=1"]


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(tmp_path, fit_diffusion, vqvae_cache, words):
    alone = fit_diffusion(tmp_path / "alone", vqvae_cache, *words)
    codes, said = together("fit-diffusion", tmp_path / "both", f"latents={vqvae_cache}", *words)
    assert codes == [0, 0], said
    both = tmp_path / "both"
    for one, other in zip(losses(alone), losses(both), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    one, other = state(alone), state(both)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    moved = [name for name in one if ".optimizer." in name and name.endswith("exp_avg") and one[name].any()]
    assert len(moved) > 20, "nearly every weight had a gradient"
    assert json.loads((both / "run.json").read_text())["status"] == "finished"


def test_ranks_see_the_same_pictures_in_the_same_order_as_one_process(tiny):
    config = tiny("fit-ae", "loop.steps=12", "image.flip=true")
    cpu = torch.device("cpu")
    alone, first, second = (
        list(training_batches(open_pictures(config, "train"), config.loop, Engine(cpu, torch.float32, rank=rank, world=world), first=0))
        for rank, world in [(0, 1), (0, 2), (1, 2)]
    )
    assert len(alone) == 12
    for step, (whole, left, right) in enumerate(zip(alone, first, second, strict=True)):
        assert torch.equal(whole[0], left[0]) and torch.equal(whole[0], batch_items(0, 40, 8, step))
        assert left[1].index + right[1].index == whole[1].index == whole[0].tolist()
        assert torch.equal(torch.cat([left[1].image, right[1].image]), whole[1].image), "flips belong to the batch"


@pytest.mark.slow
def test_an_unreadable_picture_that_another_rank_than_the_first_meets_is_written_down_and_said(tmp_path, tiny):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    config = tiny("fit-ae")
    items = batch_items(config.loop.seed, 40, config.loop.batch, 0, config.loop.shuffle).tolist()
    bad = max(items[len(items) // 2 :])
    assert bad >= 8, "none of those that are shown"
    for number in range(40):
        Image.effect_noise((16, 16), 40 + number).convert("RGB").save(pictures / f"{number:02d}.png")
    (pictures / f"{bad:02d}.png").write_bytes(b"no picture")
    words = [f"data={pictures}", "dataset={type: folder, val_share: 0}", "loop.steps=1"]
    codes, said = together("fit-ae", tmp_path / "run", *words)
    assert codes == [0, 0], said
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "bad_images.jsonl").read_text().splitlines()]
    assert row["file_name"] == f"{bad:02d}.png"
    assert "1 unreadable pictures" in said[0]


def test_a_stream_that_begins_later_is_the_rest_of_the_stream(tiny):
    config = tiny("fit-ae", "loop.steps=12", "image.flip=true")
    engine = Engine(torch.device("cpu"), torch.float32)
    whole, rest = (list(training_batches(open_pictures(config, "train"), config.loop, engine, first=first)) for first in (0, 7))
    assert len(rest) == 5
    for one, other in zip(whole[7:], rest, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1].image, other[1].image)


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_of_a_stage_learn_what_the_whole_learns(tmp_path, fit_diffusion, vqvae_cache, words, micro):
    whole = fit_diffusion(tmp_path / "whole", vqvae_cache, *words)
    parts = fit_diffusion(tmp_path / "parts", vqvae_cache, *words, f"loop.micro={micro}")
    one, other = state(whole), state(parts)
    for name in one:
        torch.testing.assert_close(other[name], one[name], atol=1e-5, rtol=1e-4)


# -- --devices ---------------------------------------------------------------------------


def ended(process, timeout=90):
    """(exit code, stdout, stderr); nothing of it is left behind."""
    try:
        out, said = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.kill()
    return process.returncode, out, said


def test_flags_that_begin_like_those_of_torchrun_reach_the_command():
    from torch.distributed.run import parse_args

    words = ["encode-dataset", "--run", "ae", "store=codes", "--devices", "2"]
    told = parse_args(launched(2, words))
    assert (told.training_script, told.training_script_args, told.module, told.nproc_per_node) == ("ldmctl", words, True, "2")


@pytest.mark.slow
def test_ranks_go_on_with_a_run_that_ended_before_its_first_save(tmp_path, fit_diffusion, vqvae_cache, words):
    out = fit_diffusion(tmp_path / "run", vqvae_cache, *words)
    finished = state(out)
    for file in ("state.safetensors", "model.safetensors", "metrics.jsonl"):
        (out / file).unlink()
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({key: value for key, value in record.items() if key != "step"} | {"status": "killed"}))
    codes, said = together("fit-diffusion", out, f"latents={vqvae_cache}", *words)
    assert codes == [0, 0], said
    for name, value in state(out).items():
        torch.testing.assert_close(value, finished[name], atol=1e-5, rtol=1e-4)


def test_a_batch_that_the_devices_cannot_share_is_refused_before_any_of_them_starts(vae_cache, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("ldmctl.cli.ranks.spread", lambda count: pytest.fail("torchrun was started"))
    for verb, words in {"fit-diffusion": ["--latents", str(vae_cache)], "fit-ae": ["--data", "shapes"]}.items():
        code = run([verb, *words, "--out", str(tmp_path / "run"), "--devices", "2", "loop.batch=7", "--json"])
        told = capfd.readouterr()
        assert code == 2 and json.loads(told.out)["exit_code"] == 2
        assert "loop.batch=7 cannot be shared by 2 devices; take a multiple of 2." in told.err and "Traceback" not in told.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_devices_starts_the_ranks_and_gives_their_result(tmp_path, fit_diffusion, vqvae_cache, words):
    alone = fit_diffusion(tmp_path / "alone", vqvae_cache, *words)
    code, out, said = ended(start("fit-diffusion", tmp_path / "both", f"latents={vqvae_cache}", *words, "--devices", "2", "--json"))
    assert code == 0, said
    assert json.loads(out)["steps"] == 5, "one object, from the first rank"
    one, other = state(alone), state(tmp_path / "both")
    for name in one:
        torch.testing.assert_close(other[name], one[name], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "code", "sentence"),
    [
        ("loop.batch=3", 2, "loop.batch=3 cannot be shared by 2 devices"),
        ("loop.seed=5", 6, "holds a run with another config"),
    ],
)
def test_devices_ends_with_the_exit_code_and_the_sentence_of_the_run(tmp_path, fit_diffusion, vqvae_cache, wrong, code, sentence):
    out = fit_diffusion(tmp_path / "run", vqvae_cache, "loop.batch=3" if code == 2 else "loop.batch=8")
    before = (out / "run.json").read_bytes()
    got, told, said = ended(start("fit-diffusion", out, f"latents={vqvae_cache}", wrong, "loop.steps=8", "--devices", "2", "--json"))
    assert got == code, said
    assert sentence in said
    assert json.loads(told)["exit_code"] == code and sentence in json.loads(told)["error"], "one object for all ranks"
    assert code != 6 or (out / "run.json").read_bytes() == before, "a command that does not fit changes nothing"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_all_ranks_and_the_same_command_goes_on(tmp_path, fit_diffusion, vqvae_cache, words, number):
    longer = [*words, "loop.steps=400", "loop.save=20", "loop.preview=1000"]
    out = tmp_path / "both"
    process = start("fit-diffusion", out, f"latents={vqvae_cache}", *longer, "--devices", "2")
    begun = time.monotonic()
    while not (out / "state.safetensors").exists() and process.poll() is None and time.monotonic() < begun + 60:
        time.sleep(0.01)
    process.send_signal(number)
    code, _, said = ended(process)
    assert code == 75, said
    assert "Run the same command to continue." in said and "Traceback (most recent call last)" not in said.split("torch")[0]
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("stopped", 75) and 20 <= record["step"] < 400
    with (out / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds the folder any more


def test_what_all_ranks_of_torchrun_have_to_say_is_said_once(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for attempt in (0, 1):
        for rank in (0, 1):
            folder = tmp_path / f"attempt_{attempt}" / str(rank)
            folder.mkdir(parents=True)
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "error.json"))
            assert run(["fit-ae", "--data", "/nowhere", "--out", str(tmp_path / "x"), "--json"]) == 3
            assert run(["fit-ae", "--no-such-option"]) == 2
            said.append(capfd.readouterr())
    for first, other in (said[:2], said[2:]):
        assert "There is no folder /nowhere" in first.err and "--no-such-option" in first.err and "exit_code" in first.out
        assert (other.err, other.out) == ("", "")
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    assert run(["fit-ae", "--data", "/nowhere", "--out", str(tmp_path / "x")]) == 3 and "There is no folder" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "why"), [(signal.SIGKILL, True), (signal.SIGABRT, True), (signal.SIGSEGV, False)])
def test_a_rank_without_last_words_is_told_by_its_signal(tmp_path, monkeypatch, number, why):
    monkeypatch.setenv(ranks.FOLDER, str(tmp_path))
    ranks.note_failures([(1, -number)])
    ended = ranks.last_words(tmp_path, 2, 1, [])
    assert f"Rank 1 of 2 was ended by {number.name}." in str(ended) and ended.exit_code == 128 + number
    assert ("Machines that run out of memory do that." in str(ended)) == why


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 6])
def test_a_rank_leaves_its_group_and_ends_before_a_thread_of_gloo_can_abort_it(tmp_path, code):
    """Such a thread wants the interpreter while it is taken down, which ends the process with SIGABRT (exit code 134)."""
    script = (
        "import atexit, os, torch.distributed as dist\n"
        "from ldmctl.cli import app; from ldmctl.config.schemas.shared import Compute; from ldmctl.training import engine\n"
        "class Late:\n"
        "    def __del__(self, abort=os.abort): abort()\n"
        "late = Late()\n"
        "atexit.register(lambda: print('in a group:', dist.is_initialized(), end=''))\n"
        f"app.app = lambda **_: engine.start(Compute(device='cpu')) and {code}\n"
        "app.run(['fit-ae'])"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | shared | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in both:
        printed, said = rank.communicate(timeout=100)
        assert (rank.returncode, printed) == (code, "in a group: False"), said
