"""What may change when a run is resumed changes from that step on, is said, and is written down."""

import json

import pytest
import torch

from ldmctl.config.documents import read_config
from ldmctl.console import Console
from ldmctl.errors import MismatchError
from ldmctl.stages.fit_ae import fit_ae as stage
from ldmctl.storage import changes, weights
from ldmctl.storage.run import open_run
from ldmctl.training import watch
from ldmctl.training.learner import learning_rate
from ldmctl.training.order import batch_items, epoch_order


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def record(folder):
    return json.loads((folder / "run.json").read_text())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def state(folder):
    return weights.load(folder / "state.safetensors")


@pytest.fixture
def heard(tiny, capsys):
    """heard(out, "loop.steps=6") runs fit-ae -> what it said."""

    def go(out, *words):
        stage(tiny("fit-ae", *words), out, console=Console())
        return capsys.readouterr().err

    return go


def test_a_lower_learning_rate_holds_from_the_step_where_it_was_asked_for(tmp_path, heard, tiny):
    heard(tmp_path, "loop.steps=4", "loop.lr=1e-3")
    said = heard(tmp_path, "loop.steps=8", "loop.lr=1e-4")
    assert "loop.lr changes from 0.001 to 0.0001 from step 4 on." in said
    before, after = tiny("fit-ae", "loop.lr=1e-3").loop, tiny("fit-ae", "loop.lr=1e-4").loop
    expected = [learning_rate(before if step < 4 else after, step) for step in range(8)]
    assert [row["lr"] for row in rows(tmp_path) if "lr" in row] == expected
    assert {"step": 4, "key": "loop.lr", "from": 1e-3, "to": 1e-4} in record(tmp_path)["changes"]
    assert read_config(tmp_path)["loop"]["lr"] == 1e-4


@pytest.mark.parametrize(
    "word",
    [
        "loop.lr=1e-4",
        "loop.warmup=8",
        "loop.decay=inverse-sqrt",
        "loop.decay=cosine",
        "loop.betas=[0.5,0.9]",
        "loop.weight_decay=0.1",
        "loop.clip=1e-3",
        "loop.ema=0.1",
        "loop.batch=4",
        "losses.pixel=l2",
        "losses.pixel_weight=3",
        "losses.equivariance_weight=1",
        "autoencoder.kl_weight=1e-2",
        "image.flip=true",
        "machine.precision=bf16",
    ],
)
def test_what_is_changed_in_a_run_changes_what_it_learns_and_is_written_down(tmp_path, fit_ae, word):
    same = fit_ae(fit_ae(tmp_path / "same", "loop.steps=4"), "loop.steps=7")
    other = fit_ae(fit_ae(tmp_path / "other", "loop.steps=4"), "loop.steps=7", word)
    assert [each["key"] for each in record(same)["changes"]] == ["loop.steps"]
    assert sorted(each["key"] for each in record(other)["changes"]) == sorted(["loop.steps", word.partition("=")[0]])
    one, two = (state(folder)[0] for folder in (same, other))
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert all(value.isfinite().all() for value in two.values() if value.is_floating_point())


@pytest.mark.parametrize(
    "word",
    ["loop.seed=3", "autoencoder.widths=[8,16]", "image.size=32", "image.background=black", "dataset.seed=4", "perceptual.type=lpips"],
)
def test_what_makes_it_another_run_is_refused(tmp_path, tiny, fit_ae, word):
    run = fit_ae(tmp_path / "run")
    before = contents(run)
    with pytest.raises(MismatchError, match="holds a run with another config"):
        open_run(run, tiny("fit-ae", word))
    assert contents(run) == before


def test_weights_of_the_adversarial_loss_may_change_and_what_is_new_begins_with_it(tmp_path, fit_ae):
    words = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=2", "adversarial.warmup=1"]
    run = fit_ae(tmp_path / "run", *words, "loop.steps=6")
    changed = ["adversarial.weight=0.5", "adversarial.lr=1e-5", "adversarial.lecam=0.1", "adversarial.ramp=3", "adversarial.loss=lsgan"]
    fit_ae(run, *words, *changed, "loop.steps=9")
    assert {each["key"] for each in record(run)["changes"]} == {"loop.steps", *(word.partition("=")[0] for word in changed)}
    assert any("adversary.lecam" in name for name in state(run)[0])
    with pytest.raises(MismatchError, match=r"adversarial\.start: 2 there, 5 asked for"):
        fit_ae(run, *[word.replace("start=2", "start=5") for word in words], *changed, "loop.steps=9")


def test_a_denoisers_weighting_may_be_learned_from_a_later_step_on(tmp_path, fit_diffusion, vae_cache):
    run = fit_diffusion(tmp_path / "run", vae_cache)
    fit_diffusion(run, vae_cache, "loop.steps=6", "weighting.kind=learned", "times.sampling=logit-normal", "drop=0.3")
    assert {each["key"] for each in record(run)["changes"]} == {"loop.steps", "weighting.kind", "times.sampling", "drop"}
    assert any(name.startswith("uncertainty.") for name in state(run)[0])


# -- the data order ----------------------------------------------------------------------------


def test_with_another_batch_the_epoch_goes_on_where_it_was():
    count, epoch = 40, epoch_order(0, 0, 40)
    first = torch.cat([batch_items(0, count, 8, step) for step in range(3)])
    rest = torch.cat([batch_items(0, count, 4, step, shift=24 - 3 * 4) for step in range(3, 7)])
    assert torch.cat([first, rest]).tolist() == epoch.tolist(), "every item once"


def test_a_run_counts_the_items_it_has_seen_whatever_its_batches_were(tmp_path, fit_ae, monkeypatch):
    taken = []
    from ldmctl.pictures import loading

    items = loading.batch_items
    monkeypatch.setattr(loading, "batch_items", lambda *given, **more: taken.append(items(*given, **more)) or taken[-1])
    monkeypatch.setattr("ldmctl.stages.fit_ae.conclude", lambda *given: {})
    run = fit_ae(tmp_path / "run", "loop.steps=3", "loop.batch=8", "loop.workers=0")
    fit_ae(run, "loop.steps=5", "loop.batch=4", "loop.workers=0")
    fit_ae(run, "loop.steps=6", "loop.batch=8", "loop.workers=0")
    assert state(run)[1]["scalars"]["seen"] == 3 * 8 + 2 * 4 + 8
    seen = torch.cat([each for number, each in enumerate(taken) if number % 2]).tolist()  # each batch is asked for twice
    assert seen == epoch_order(0, 0, 40).tolist()


# -- what is written down ------------------------------------------------------------------------


def test_a_change_that_never_came_into_force_leaves_no_note(tmp_path, fit_ae, tiny):
    run = fit_ae(tmp_path / "run")
    open_run(run, tiny("fit-ae", "loop.lr=0.5")).close("killed", 137)
    assert record(run)["changes"] == [{"step": 4, "key": "loop.lr", "from": 1e-3, "to": 0.5}]
    open_run(run, tiny("fit-ae", "loop.lr=0.25")).close("killed", 137)
    assert record(run)["changes"] == [{"step": 4, "key": "loop.lr", "from": 1e-3, "to": 0.25}]
    open_run(run, tiny("fit-ae")).close("finished")
    assert record(run)["changes"] == []


def test_changes_are_told_with_their_values():
    known = changes.added([], 10, [("loop.lr", 1e-3, 1e-4)])
    known = changes.added(known, 4000, [("loop.lr", 1e-4, 1e-5), ("loop.batch", 1024, 2048)])
    assert [changes.said(each) for each in known] == [
        "loop.lr changes from 0.001 to 0.0001 from step 10 on.",
        "loop.lr changes from 0.0001 to 1e-05 from step 4,000 on.",
        "loop.batch changes from 1,024 to 2,048 from step 4,000 on.",
    ]


def test_fewer_steps_than_a_run_has_are_refused_and_leave_its_config_alone(tmp_path, fit_ae):
    run = fit_ae(tmp_path / "run", "loop.steps=6")
    before = contents(run)
    with pytest.raises(MismatchError, match=r"has made 6 steps already and loop\.steps=3 asks for fewer.*Take loop\.steps=6 or more"):
        fit_ae(run, "loop.steps=3")
    assert contents(run) == before


def test_best_is_chosen_among_the_coming_ones_when_losses_are_measured_otherwise(tmp_path, heard):
    words = ["loop.preview=1"]
    heard(tmp_path, *words, "loop.steps=3")
    said = heard(tmp_path, *words, "loop.steps=6", "losses.pixel_weight=100")
    assert "so snapshots/best is chosen among the coming ones" in said
    assert weights.read_header(tmp_path / "snapshots" / "best.safetensors")["step"] > 3


@pytest.mark.parametrize("kept", ["true", "false"])
def test_losses_that_are_other_ones_are_not_compared_with_those_before_and_what_was_done_stays_written(tmp_path, fit_ae, monkeypatch, kept):
    monkeypatch.setattr(watch, "APART", 1)
    words = ["loop.watch.every=0.001", f"loop.keep.best={kept}"]
    made_up(monkeypatch, [0.01] * 14 + [0.1] * 4)
    run = fit_ae(tmp_path, *words, "loop.steps=18")
    made_up(monkeypatch, [0.5] * 14 + [5.0] * 4)
    fit_ae(run, *words, "loop.steps=32", "losses.pixel=l2")
    assert [each["step"] for each in record(run)["watch"]] == [17], "0.5 is no rise above 0.01"
    fit_ae(run, *words, "loop.steps=36", "losses.pixel=l2")
    assert [(each["step"], each["what"]) for each in record(run)["watch"]] == [(17, "risen"), (35, "risen")]
    assert ("snapshots/best is kept" in record(run)["watch"][1]["why"]) == (kept == "true")


def made_up(monkeypatch, losses):
    """Validations with these losses, one after the other."""
    given = iter(losses)
    monkeypatch.setattr(
        "ldmctl.stages.fit_ae.validate", lambda *_: {"val/pixel": (loss := next(given)), "val/loss": loss, "val/psnr": 20.0}
    )


def test_a_command_that_changed_the_losses_and_was_killed_before_it_saved_leaves_no_best_of_others(tmp_path, fit_ae, monkeypatch):
    words = ["loop.preview=1", "loop.save=3"]
    run = fit_ae(tmp_path, *words, "loop.steps=3")
    killed = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr("ldmctl.stages.fit_ae.validate", killed)
        fit_ae(run, *words, "loop.steps=6", "losses.pixel_weight=100")
    fit_ae(run, *words, "loop.steps=6", "losses.pixel_weight=100")
    assert weights.read_header(run / "snapshots" / "best.safetensors")["step"] > 3


# -- averages ------------------------------------------------------------------------------------


def test_a_resume_that_forgets_keep_averages_keeps_them_up(tmp_path, fit_diffusion, vae_cache):
    whole = fit_diffusion(tmp_path / "whole", vae_cache, "loop.steps=9", "loop.keep.averages=3")
    parts = fit_diffusion(tmp_path / "parts", vae_cache, "loop.steps=3", "loop.keep.averages=3")
    fit_diffusion(parts, vae_cache, "loop.steps=6")
    assert len(list((parts / "averages").iterdir())) == 2, "none is stored while nobody asks for it"
    fit_diffusion(parts, vae_cache, "loop.steps=9", "loop.keep.averages=3")
    names = sorted(path.name for path in (parts / "averages").glob("000000009-*"))
    assert len(names) == 2
    for name in names:
        assert (parts / "averages" / name).read_bytes() == (whole / "averages" / name).read_bytes()


def test_averages_that_a_state_does_not_have_are_not_made_up(tmp_path, fit_diffusion, vae_cache):
    run = fit_diffusion(tmp_path / "run", vae_cache)
    before = contents(run)
    with pytest.raises(MismatchError, match=r"has no power averages, which begin with the first step: it was started without"):
        fit_diffusion(run, vae_cache, "loop.steps=6", "loop.keep.averages=2")
    assert contents(run) == before
