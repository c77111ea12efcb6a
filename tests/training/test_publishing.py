"""The weights that a run publishes are the ones that it says it publishes."""

import json
import math

import pytest
import torch
from planted import BEST, plant

from ldmctl.stages import fit_ae as stage
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


@pytest.mark.parametrize("key", ["auto", "best"])
def test_weights_whose_validation_is_no_number_are_not_published(tmp_path, fit_ae, monkeypatch, key):
    losses = iter([0.5, math.nan])
    monkeypatch.setattr(stage, "validate", lambda *_: {"val/loss": (loss := next(losses)), "val/psnr": loss})
    run = fit_ae(tmp_path / "run", "loop.steps=4", "loop.preview=2", "loop.watch.every=0.5", f"loop.publish={key}")
    assert published(run)["which"] == "best" and model(run)[1]["step"] == published(run)["step"] == 2


def test_a_prolonged_run_that_is_stopped_says_nothing_of_the_model_before(tmp_path, fit_ae, monkeypatch):
    run = fit_ae(tmp_path / "run", "loop.steps=4")
    assert {"published", "judged"} <= set(json.loads((run / "run.json").read_text()))
    monkeypatch.setattr(stage, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fit_ae(run, "loop.steps=6")
    record = json.loads((run / "run.json").read_text())
    assert record["step"] == model(run)[1]["step"] == 6 and not {"published", "judged"} & set(record)
