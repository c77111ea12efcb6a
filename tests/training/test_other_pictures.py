"""A run that goes on with other held-out pictures compares no validation loss with those before; other training pictures change nothing in that."""

import json

import numpy as np
import pytest
from PIL import Image

from ldmctl.storage import weights
from ldmctl.storage.measured import measured_otherwise, measured_since
from ldmctl.storage.runs import look
from ldmctl.training import watch

CRITIC = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=2", "adversarial.warmup=1"]


@pytest.fixture
def pictures(tmp_path):
    folder, random = tmp_path / "pictures", np.random.default_rng(0)
    for index in range(20):
        file = folder / ("val" if index < 4 else "train") / f"{index:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    return folder


def paint(pictures, split):
    Image.new("RGB", (16, 16), (250, 0, 0)).save(next((pictures / split).glob("*.png")))


def record(run):
    return json.loads((run / "run.json").read_text())


def step_of_best(run):
    return weights.read_header(run / "snapshots" / "best.safetensors")["step"]


def made_up(monkeypatch, stage, losses):
    """Validations of a stage with these losses, one after the other."""
    given = iter(losses)
    values = lambda loss: {"val/pixel": loss, "val/loss": loss, "val/psnr": 20.0}
    monkeypatch.setattr(f"ldmctl.stages.{stage}.validate", lambda *_: values(next(given)))


@pytest.mark.parametrize(("split", "best"), [("val", 4), ("train", 3)])
def test_best_is_chosen_among_those_of_the_same_held_out_pictures(tmp_path, fit_ae, pictures, monkeypatch, split, best):
    words = [f"data={pictures}", "loop.preview=1"]
    made_up(monkeypatch, "fit_ae", [0.3, 0.2, 0.1])
    run = fit_ae(tmp_path / "run", *words, "loop.steps=3")
    paint(pictures, split)
    made_up(monkeypatch, "fit_ae", [0.5, 0.6, 0.7])
    fit_ae(run, *words, "loop.steps=6", accept_data=True)
    assert step_of_best(run) == look(run).best()[0] == best
    assert record(run)["published"] == {
        "which": "best",
        "step": best,
        "why": f"its validation loss is {0.5 if split == 'val' else 0.1}, that of the last step 0.7",
    }
    assert ("pictures.val" in [each["key"] for each in record(run)["changes"]]) == (split == "val")
    verdict = " ".join(record(run)["judged"]["verdict"])
    assert ("lowest at step 3" in verdict) == (split == "train")
    made_up(monkeypatch, "fit_ae", [0.9])
    fit_ae(run, *words, "loop.steps=7")
    assert step_of_best(run) == best, "asked once, and not again"


def test_the_watch_begins_anew_with_other_held_out_pictures(tmp_path, fit_ae, pictures, monkeypatch):
    monkeypatch.setattr(watch, "APART", 1)
    words = [f"data={pictures}", "loop.watch.every=0.001"]
    made_up(monkeypatch, "fit_ae", [0.1] * 14)
    run = fit_ae(tmp_path / "run", *words, "loop.steps=14")
    paint(pictures, "val")
    made_up(monkeypatch, "fit_ae", [0.2] * 8)
    fit_ae(run, *words, "loop.steps=22", accept_data=True)
    assert "watch" not in record(run)
    kept = weights.read_header(run / "state.safetensors")["scalars"]["kept"]["watch"]
    assert kept["steps"] == list(range(15, 23))


@pytest.mark.parametrize("split", ["val", "train"])
def test_before_and_after_the_discriminator_are_of_the_same_pictures_or_not_compared(tmp_path, fit_ae, pictures, split):
    words = [f"data={pictures}", *CRITIC]
    run = fit_ae(tmp_path / "run", *words, "loop.steps=4")
    assert any("From the discriminator's first step (3) to step 4" in line for line in record(run)["judged"]["verdict"])
    paint(pictures, split)
    fit_ae(run, *words, "loop.steps=6", accept_data=True)
    lines = record(run)["judged"]["verdict"]
    assert any("From the discriminator's first step (3) to step 6" in line for line in lines) == (split == "train")
    said = "What the discriminator has changed cannot be said: other pictures are held out since step 4."
    assert (said in lines) == (split == "val")


def grown(encode, run, folder, split, *numbers):
    for number in numbers:
        (folder / split).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), 40 + number).convert("RGB").save(folder / split / f"{number:02d}.png")
    return encode(folder.parent / "cache", run, f"data={folder}")


@pytest.mark.parametrize(("split", "best"), [("val", 4), ("train", 3)])
def test_a_denoisers_best_is_chosen_among_those_of_the_same_held_out_latents(
    tmp_path, fit_diffusion, encode, vae_run, monkeypatch, split, best
):
    folder, words = tmp_path / "pictures", ["conditioner=null", "loop.preview=1"]
    grown(encode, vae_run, folder, "train", *range(10))
    cache = grown(encode, vae_run, folder, "val", *range(10, 14))
    made_up(monkeypatch, "fit_diffusion", [0.3, 0.2, 0.1])
    run = fit_diffusion(tmp_path / "run", cache, *words, "loop.steps=3")
    grown(encode, vae_run, folder, split, 20, 21)
    made_up(monkeypatch, "fit_diffusion", [0.5, 0.6, 0.7])
    fit_diffusion(run, cache, *words, "loop.steps=6", accept_data=True)
    assert step_of_best(run) == look(run).best()[0] == best


def test_what_changes_a_validation_loss_is_known_by_its_change():
    change = lambda key, before=1, after=2, step=5: {"step": step, "key": key, "from": before, "to": after}
    for each in (change("pictures.val"), change("cache.val", None, "x"), change("maps"), change("drop", 0.1, 1.0), change("drop", 1, 0.5)):
        assert measured_otherwise(each) and measured_since({"changes": [each]}) == 5
    for each in (change("pictures"), change("cache"), change("drop", 0.1, 0.5), change("loop.lr"), {}, {"key": ["drop"], "from": [1]}):
        assert not measured_otherwise(each) and measured_since({"changes": [each]}) == 0
