"""The weights that a run publishes are the ones that it says it publishes."""

import json
import math

import pytest
import torch
from planted import BEST, plant
from torchvision import models

from ldmctl.console import Console
from ldmctl.latents.manifest import read
from ldmctl.latents.recipe import recipe
from ldmctl.stages import fit_ae as stage
from ldmctl.stages.fit_diffusion import fit_diffusion
from ldmctl.storage import weights

OFTEN = ["loop.watch.every=0.001", "loop.save=100", "loop.preview=100"]


@pytest.fixture
def planted(monkeypatch):
    """Validations whose loss is lowest at step 18 and more than doubles from step 20 to step 30."""
    plant(monkeypatch.setattr)


def published(run):
    return json.loads((run / "run.json").read_text())["published"]


def model(run):
    return weights.load(run / "model.safetensors")


@pytest.mark.parametrize(("key", "which"), [("auto", "best"), ("best", "best"), ("last", "last")])
def test_a_run_that_ends_worse_than_its_best_publishes_what_the_key_says(tmp_path, fit_ae, planted, key, which):
    run = fit_ae(tmp_path / "run", *OFTEN, "loop.steps=26", f"loop.publish={key}")
    tensors, header = model(run)
    best = weights.load(run / "snapshots" / "best.safetensors")
    assert published(run)["which"] == which and header["step"] == published(run)["step"] == {"best": BEST, "last": 26}[which]
    assert all(torch.equal(value, best[0][name]) for name, value in tensors.items()) == (which == "best")


def test_one_that_ends_within_the_bound_publishes_its_last_weights_unless_the_best_are_asked_for(tmp_path, fit_ae, monkeypatch):
    run = fit_ae(tmp_path / "run", "loop.steps=6", "loop.preview=2")
    assert published(run)["which"] == "last" and model(run)[1]["step"] == 6
    assert published(run)["why"].startswith("its validation loss is ")


def test_the_verdict_is_of_the_published_weights_and_says_which(tmp_path, fit_ae, planted, capsys):
    last = fit_ae(tmp_path / "last", *OFTEN, "loop.steps=26", "loop.publish=last")
    best = fit_ae(tmp_path / "best", *OFTEN, "loop.steps=26")
    alone = fit_ae(tmp_path / "alone", *OFTEN, f"loop.steps={BEST}")
    judged = {run.name: json.loads((run / "run.json").read_text())["judged"] for run in (last, best, alone)}
    assert judged["best"]["psnr"] == judged["alone"]["psnr"] != judged["last"]["psnr"]
    assert (
        "The published weights are the best ones, of step 18 (its validation loss is 0.91, that of the last step 2)."
        in judged["best"]["verdict"]
    )


def test_a_finished_run_that_is_called_again_publishes_the_same(tmp_path, fit_ae, planted):
    words = [*OFTEN, "loop.steps=26"]
    run = fit_ae(tmp_path / "run", *words)
    before = (run / "model.safetensors").read_bytes()
    assert (fit_ae(run, *words) / "model.safetensors").read_bytes() == before


def test_one_that_is_prolonged_continues_from_its_last_weights(tmp_path, fit_ae, planted):
    whole = fit_ae(tmp_path / "whole", *OFTEN, "loop.steps=34")
    parts = fit_ae(fit_ae(tmp_path / "parts", *OFTEN, "loop.steps=26"), *OFTEN, "loop.steps=34")
    assert published(whole)["which"] == published(parts)["which"] == "last"
    assert all(torch.equal(value, model(parts)[0][name]) for name, value in model(whole)[0].items())


def test_one_that_fails_to_be_prolonged_keeps_what_it_had_published(tmp_path, fit_ae, planted, monkeypatch):
    run = fit_ae(tmp_path / "run", *OFTEN, "loop.steps=26")
    before = (run / "model.safetensors").read_bytes(), published(run)
    with monkeypatch.context() as broken:
        broken.setattr(stage, "one_step", lambda *_: (_ for _ in ()).throw(RuntimeError("no more")))
        with pytest.raises(RuntimeError, match="no more"):
            fit_ae(run, *OFTEN, "loop.steps=34")
    assert ((run / "model.safetensors").read_bytes(), published(run)) == before and published(run)["which"] == "best"
    again = fit_ae(run, *OFTEN, "loop.steps=26", "loop.publish=last")
    assert published(again)["step"] == model(again)[1]["step"] == 26


def test_where_no_best_weights_were_kept_the_last_ones_are_published_and_it_says_why(tmp_path, fit_ae, planted):
    run = fit_ae(tmp_path / "run", *OFTEN, "loop.steps=26", "loop.publish=best", "loop.keep.best=false")
    assert published(run)["which"] == "last" and "loop.keep.best" in published(run)["why"]


@pytest.mark.parametrize("key", ["auto", "best"])
def test_weights_whose_validation_is_no_number_are_not_published(tmp_path, fit_ae, monkeypatch, key):
    losses = iter([0.5, math.nan])
    monkeypatch.setattr(stage, "validate", lambda *_: {"val/loss": (loss := next(losses)), "val/psnr": loss})
    run = fit_ae(tmp_path / "run", "loop.steps=4", "loop.preview=2", "loop.watch.every=0.5", f"loop.publish={key}")
    assert published(run)["which"] == "best" and model(run)[1]["step"] == published(run)["step"] == 2


def test_the_best_weights_of_steps_that_are_made_again_are_not_those_of_the_best_loss_before(tmp_path, fit_ae, monkeypatch):
    def losses(*given):
        found = iter(given)
        monkeypatch.setattr(stage, "validate", lambda *_: {"val/loss": next(found), "val/psnr": 20.0})

    words = ["loop.preview=2", "loop.save=4", "loop.steps=12"]
    losses(0.6, 0.5, 0.1)  # and killed at step 8: the state is of step 4, snapshots/best of step 6
    with pytest.raises(StopIteration):
        fit_ae(tmp_path / "run", *words)
    losses(0.7, 0.55, 0.9, 0.9)
    run = fit_ae(tmp_path / "run", *words, "loop.lr=1e-4")
    assert published(run) == {"which": "best", "step": 8, "why": "its validation loss is 0.55, that of the last step 0.9"}
    assert model(run)[1]["step"] == weights.read_header(run / "snapshots" / "best.safetensors")["step"] == 8
    (run / "snapshots" / "best.safetensors").unlink()
    losses(0.95)
    assert published(fit_ae(run, *words, "loop.steps=14", "loop.lr=1e-4"))["which"] == "last"
    assert weights.read_header(run / "snapshots" / "best.safetensors")["step"] == 14, "one that was deleted is chosen anew"


def test_a_prolonged_run_that_is_stopped_says_nothing_of_the_model_before(tmp_path, fit_ae, monkeypatch):
    run = fit_ae(tmp_path / "run", "loop.steps=4")
    assert {"published", "judged"} <= set(json.loads((run / "run.json").read_text()))
    monkeypatch.setattr(stage, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fit_ae(run, "loop.steps=6")
    record = json.loads((run / "run.json").read_text())
    assert record["step"] == model(run)[1]["step"] == 6 and not {"published", "judged"} & set(record)


def test_a_denoiser_that_ends_worse_than_its_best_publishes_that_and_says_so(tmp_path, tiny, vae_cache, monkeypatch, capsys):
    losses = iter([0.5, 0.4, 0.6])
    monkeypatch.setattr("ldmctl.stages.fit_diffusion.validate", lambda *_: {"val/loss": next(losses)})
    words = [f"latents={vae_cache}", "loop.steps=6", "loop.preview=2"]
    fit_diffusion(tiny("fit-diffusion", *words, below=recipe(read(vae_cache))), tmp_path / "run", console=Console())
    best = weights.load(tmp_path / "run" / "snapshots" / "best.safetensors")
    assert published(tmp_path / "run")["which"] == "best" and model(tmp_path / "run")[1]["step"] == best[1]["step"] == 4
    assert all(torch.equal(value, best[0][name]) for name, value in model(tmp_path / "run")[0].items())
    said = "Its weights are the best ones, of step 4 (its validation loss is 0.4, that of the last step 0.6)."
    assert said in capsys.readouterr().err


CRITIC = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=4", "adversarial.warmup=1", "adversarial.ramp=1"]


def test_what_was_before_the_discriminator_is_what_a_run_that_ends_there_is_worth(tmp_path, fit_ae, towers):
    features = f"perceptual={{type: features, network: squeezenet1_1, weights: {towers['features']}}}"
    words = [features, "image.size=32", "dataset.size=32", "loop.lr=0.01"]
    run = fit_ae(tmp_path / "run", *words, *CRITIC, "loop.steps=7")
    before_it, record = fit_ae(tmp_path / "before", *words, "loop.steps=4"), json.loads((run / "run.json").read_text())
    was, alone = record["before_discriminator"], json.loads((before_it / "run.json").read_text())["judged"]
    title = "features-squeezenet1_1"
    assert was["step"] == 4 and {"psnr", "ssim", title, "frechet"} <= set(was)
    for name in ("psnr", "ssim", title, "frechet", "count", "split"):
        assert was[name] == alone[name], name
    judged = record["judged"]
    said = (
        f"From the discriminator's first step (5) to step 7: PSNR from {was['psnr']['mean']:.4g} to {judged['psnr']['mean']:.4g}, "
        f"SSIM from {was['ssim']['mean']:.4g} to {judged['ssim']['mean']:.4g}, {title} from {was[title]['mean']:.4g} to "
        f"{judged[title]['mean']:.4g}, the Frechet distance of reconstructions in {title} from "
        f"{was['frechet'][title]['made']:.4g} to {judged['frechet'][title]['made']:.4g}."
    )
    assert said in judged["verdict"] and was["psnr"]["mean"] != judged["psnr"]["mean"]
    parts = fit_ae(fit_ae(tmp_path / "parts", *words, *CRITIC, "loop.steps=6"), *words, *CRITIC, "loop.steps=7")
    assert json.loads((parts / "run.json").read_text())["before_discriminator"] == was


@pytest.mark.parametrize("lie_here", [True, False])
def test_without_a_perceptual_loss_a_phase_is_measured_by_squeezenet_where_its_weights_lie(tmp_path, fit_ae, monkeypatch, lie_here):
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr("ldmctl.storage.assets.download", lambda *_, **__: pytest.fail("nothing is fetched for it"))
    if lie_here:
        torch.save(models.squeezenet1_0(weights=None).state_dict(), tmp_path / "squeezenet1_0-b66bff10.pth")
    words = ["perceptual=null", "image.size=32", "dataset.size=32"]
    record = json.loads((fit_ae(tmp_path / "run", *words, *CRITIC, "loop.steps=6") / "run.json").read_text())
    title = "features-squeezenet1_0"
    for found in (record["before_discriminator"], record["judged"]):
        assert (title in found, title in found.get("frechet", {})) == (lie_here, lie_here)
    assert any(f"Frechet distance of reconstructions in {title} from" in said for said in record["judged"]["verdict"]) == lie_here
    alone = json.loads((fit_ae(tmp_path / "alone", *words, "discriminator=null", "loop.steps=2") / "run.json").read_text())
    assert title not in alone["judged"]  # no phase to measure: an examination costs no more than before


@pytest.mark.parametrize(("damaged", "size"), [(True, 32), (False, 16)])
def test_where_squeezenet_cannot_be_asked_a_phase_is_measured_without_it(tmp_path, fit_ae, monkeypatch, damaged, size):
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(tmp_path))
    file = tmp_path / "squeezenet1_0-b66bff10.pth"
    if damaged:
        file.write_bytes(b"no weights")
    else:
        torch.save(models.squeezenet1_0(weights=None).state_dict(), file)
    run = fit_ae(tmp_path / "run", "perceptual=null", *CRITIC, "loop.steps=6", f"image.size={size}", f"dataset.size={size}")
    record = json.loads((run / "run.json").read_text())
    assert {"psnr", "ssim"} <= set(record["judged"]) and not record["judged"].get("frechet")


def test_weights_of_before_the_discriminator_are_said_to_be_so(tmp_path, fit_ae, planted):
    late = [*CRITIC, "adversarial.start=19"]
    run = fit_ae(tmp_path / "run", *OFTEN, *late, "loop.steps=23")
    record = json.loads((run / "run.json").read_text())
    assert record["published"]["step"] == BEST and record["before_discriminator"]["step"] == 19
    assert (
        "The published weights are of before the discriminator's first step (20): it has changed nothing in them."
        in record["judged"]["verdict"]
    )
