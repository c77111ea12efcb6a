"""A run that is killed and begun again ends as if nothing had happened, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from ldmctl.errors import MismatchError, Stopped
from ldmctl.storage import weights

TINY = Path(__file__).parents[1] / "tiny"
ADVERSARIAL = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=12"]
STEPS = ["loop.steps=20", "loop.save=10", "loop.preview=15", "loop.decay=cosine"]
DRAWN = ["preview.count=8", "preview.steps=40"]  # a long look at step 15, in which the run can be killed


def command(verb, out, *words):
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ldmctl", verb, "--config", str(TINY / f"{verb}.yaml"), "--out", str(out), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def state_of(out):
    """The step of the saved state, 0 before the first."""
    file = out / "state.safetensors"
    return weights.read_header(file)["scalars"]["step"] if file.exists() else 0


def record(out):
    return json.loads((out / "run.json").read_text())


def interrupt(verb, out, *words, number):
    """Begin a run and send it a signal after its state of step 10 -> its exit code and last words."""
    with command(verb, out, *words) as process:
        try:
            while state_of(out) < 10 and process.poll() is None:
                time.sleep(0.001)
            os.kill(process.pid, number)
            return process.wait(60), process.stderr.read()
        finally:
            process.kill()


def finish(verb, out, *words):
    """The command from beginning, or from where it stopped, to its end: a process of its own too, so that threads are alike."""
    with command(verb, out, *words) as process:
        said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    return out


def facts(out):
    """metrics.jsonl without how fast it went."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("images_per_second", "peak_share", "memory_gib")} for row in rows]


def assert_same(one, other):
    """Two finished runs, bit for bit."""
    assert facts(one) == facts(other)
    files = [
        "state.safetensors",
        "model.safetensors",
        "snapshots/best.safetensors",
        "samples/000000015.png",
        f"samples/{state_of(one):09d}.png",
    ]
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
def test_a_denoiser_killed_with_kill_9_ends_the_same(tmp_path, vae_cache):
    words = [f"latents={vae_cache}", *STEPS, *DRAWN, "loop.micro=3"]
    whole = finish("fit-diffusion", tmp_path / "whole", *words)
    code, _ = interrupt("fit-diffusion", tmp_path / "parts", *words, number=signal.SIGKILL)
    assert code == -signal.SIGKILL and state_of(tmp_path / "parts") == 10
    assert record(tmp_path / "parts")["status"] == "running", "nobody was there to say how it ended"
    finish("fit-diffusion", tmp_path / "parts", *words)
    assert_same(whole, tmp_path / "parts")
    assert record(tmp_path / "parts")["status"] == "finished"


@pytest.mark.slow
def test_an_autoencoder_and_its_discriminator_killed_with_kill_9_end_the_same(tmp_path, vqvae_words):
    words = [*vqvae_words, *ADVERSARIAL, *STEPS, "image.flip=true", "loop.steps=100"]
    whole = finish("fit-ae", tmp_path / "whole", *words)
    code, _ = interrupt("fit-ae", tmp_path / "parts", *words, number=signal.SIGKILL)
    assert code == -signal.SIGKILL and 10 <= state_of(tmp_path / "parts") < 100
    finish("fit-ae", tmp_path / "parts", *words)
    assert_same(whole, tmp_path / "parts")


@pytest.mark.slow
def test_a_terminated_run_says_75_and_goes_on(tmp_path, vae_cache):
    words = [f"latents={vae_cache}", *STEPS, *DRAWN]
    whole = finish("fit-diffusion", tmp_path / "whole", *words)
    code, said = interrupt("fit-diffusion", tmp_path / "parts", *words, number=signal.SIGTERM)
    assert code == 75 and "SIGTERM received" in said and "Run the same command to continue." in said
    assert (record(tmp_path / "parts")["status"], record(tmp_path / "parts")["exit_code"]) == ("stopped", 75)
    assert 10 <= state_of(tmp_path / "parts") == record(tmp_path / "parts")["step"] < 20
    finish("fit-diffusion", tmp_path / "parts", *words)
    assert_same(whole, tmp_path / "parts")


# -- the same promise, in one process ------------------------------------------------------


@contextmanager
def terminated_at(picture):
    """Within it this process gets SIGTERM as soon as the picture is there."""

    def watch():
        while not picture.exists():
            time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    watcher.join(10)


@pytest.mark.parametrize("stop", [3, 15])
def test_an_autoencoder_stopped_before_or_after_its_discriminator_began_ends_the_same(tmp_path, fit_ae, vqvae_words, stop):
    words = [*vqvae_words, *ADVERSARIAL, "loop.steps=24", "loop.preview=3", "image.flip=true", "loop.keep.every=4"]
    whole = fit_ae(tmp_path / "whole", *words)
    with (
        terminated_at(tmp_path / "parts" / "samples" / f"{stop:09d}.png"),
        pytest.raises(Stopped, match="Run the same command to continue"),
    ):
        fit_ae(tmp_path / "parts", *words)
    assert stop <= state_of(tmp_path / "parts") < 24
    fit_ae(tmp_path / "parts", *words)
    assert facts(whole) == facts(tmp_path / "parts")
    files = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.suffix in (".safetensors", ".png"))
    assert len(files) == 2 + 7 + 8 + 2
    for name in files:
        assert (whole / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_a_denoiser_goes_on_when_the_free_keys_change(tmp_path, fit_diffusion, vae_cache):
    whole = fit_diffusion(tmp_path / "whole", vae_cache, "loop.steps=12")
    fit_diffusion(tmp_path / "parts", vae_cache, "loop.steps=5")
    fit_diffusion(tmp_path / "parts", vae_cache, "loop.steps=12", "loop.report=2", "loop.preview=7", "preview.steps=3")
    for name in ("state.safetensors", "model.safetensors"):
        one, other = weights.load(whole / name)[0], weights.load(tmp_path / "parts" / name)[0]
        assert all((one[key] == other[key]).all() for key in one), name


def test_another_seed_is_another_run(tmp_path, fit_diffusion, vae_cache):
    one = fit_diffusion(tmp_path / "one", vae_cache, "loop.seed=1")
    other = fit_diffusion(tmp_path / "other", vae_cache, "loop.seed=2")
    again = fit_diffusion(tmp_path / "again", vae_cache, "loop.seed=1")
    read = lambda run: (run / "model.safetensors").read_bytes()
    assert read(one) == read(again) != read(other)


def test_a_cache_that_changed_since_is_refused_and_leaves_the_run_alone(tmp_path, fit_diffusion, vae_cache, vae_run, encode):
    cache = encode(tmp_path / "cache", vae_run, "flip=false")
    run = fit_diffusion(tmp_path / "run", cache)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    encode(tmp_path / "cache", vae_run, "dataset.count=24", overwrite=True)
    with pytest.raises(MismatchError, match=r"it had 40 training and 8 held-out latents, now it has 24 .*--overwrite") as caught:
        fit_diffusion(run, cache)
    assert caught.value.exit_code == 6
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
