"""An adversarial phase that makes the losses worse is turned down, then ended, and the run continues from its best weights."""

import json
from types import SimpleNamespace

import planted as program
import pytest
import torch
from planted import BEST, plant
from two_ranks import together

from ldmctl.losses.watchman import Watchman
from ldmctl.stages import fit_ae as stage
from ldmctl.storage import weights

CRITIC = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=4", "adversarial.warmup=1", "adversarial.ramp=1"]
OFTEN = ["loop.watch.every=0.001", "loop.save=100", "loop.preview=100"]
DOWN, OFF = 24, 30  # the steps of what follows when losses double after step 18


@pytest.fixture
def planted(monkeypatch):
    """Validations every second step, whose loss doubles from step 20 to step 30."""
    plant(monkeypatch.setattr)


def record(run):
    return json.loads((run / "run.json").read_text())


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def events(run):
    return [(each["step"], each["what"]) for each in record(run).get("watch", [])]


def test_a_planted_rise_turns_the_discriminator_down_then_off_and_each_is_said_once(tmp_path, fit_ae, planted):
    run = fit_ae(tmp_path / "run", *CRITIC, *OFTEN, "loop.steps=44", "loop.report=1")
    assert events(run) == [(DOWN, "turned down"), (OFF, "ended")]
    assert record(run)["watch"][0]["why"] == (
        "pixel has risen from 0.92 around step 18 to 2 or more in its last three validations. The discriminator is turned down to 0.1 of its weight."
    )
    assert record(run)["watch"][1]["why"].endswith(
        "so it is turned off, and training continues from the weights of step 18, the best so far."
    )
    heard = {row["step"]: row["adversarial_weight"] for row in rows(run) if "adversarial_weight" in row}
    assert [heard[step] for step in (DOWN, DOWN + 1, OFF, OFF + 1)] == pytest.approx([0.1, 0.01, 0.01, 0.0])


def test_a_discriminator_that_is_turned_down_and_does_no_more_harm_is_heard_on(tmp_path, fit_ae, monkeypatch):
    plant(monkeypatch.setattr, until=DOWN)
    run = fit_ae(tmp_path / "run", *CRITIC, *OFTEN, "loop.steps=44", "loop.report=1")
    assert events(run) == [(DOWN, "turned down")]
    heard = {row["step"]: row["adversarial_weight"] for row in rows(run) if "adversarial_weight" in row}
    assert [heard[step] for step in (DOWN, DOWN + 1, OFF + 1, 44)] == pytest.approx([0.1, 0.01, 0.01, 0.01])
    assert record(run)["published"]["step"] == 44 and {"discriminator/loss"} <= set().union(
        *(row for row in rows(run) if row["step"] == 44)
    )


def test_a_loss_that_had_risen_before_the_discriminator_was_heard_is_only_said(tmp_path, fit_ae, monkeypatch):
    plant(monkeypatch.setattr, until=99)
    late = [*CRITIC, "adversarial.start=21"]  # heard from step 22 on, when the loss is at 2 already
    run = fit_ae(tmp_path / "run", *late, *OFTEN, "loop.steps=44", "loop.report=1")
    assert events(run) == [(DOWN, "risen")]
    assert {row["step"]: row["adversarial_weight"] for row in rows(run) if "adversarial_weight" in row}[44] == pytest.approx(0.1)


def test_one_that_rises_further_once_it_is_heard_is_turned_down(tmp_path, fit_ae, monkeypatch):
    def pixel(step):
        return 1.0 if step <= BEST else 1.5 if step <= 28 else 3.0

    plant(monkeypatch.setattr, pixel=pixel, loss=pixel)
    run = fit_ae(tmp_path / "run", *CRITIC, "adversarial.start=26", *OFTEN, "loop.steps=36")
    assert events(run) == [(DOWN, "risen"), (34, "turned down")]


def test_a_loss_that_comes_back_is_given_its_time(tmp_path, fit_ae, monkeypatch):
    def pixel(step):
        return 1.0 if step <= BEST else 2.0 if step <= DOWN else max(2.0 - 0.05 * (step - DOWN), 1.0)

    plant(monkeypatch.setattr, pixel=pixel, loss=pixel)
    run = fit_ae(tmp_path / "run", *CRITIC, *OFTEN, "loop.steps=52")
    assert events(run) == [(DOWN, "turned down")] and pixel(OFF) > 1.6, "far above the bound when its time was over"


def test_a_loss_that_has_risen_in_the_best_weights_too_is_said_to_have_and_no_more(tmp_path, fit_ae, monkeypatch):
    plant(monkeypatch.setattr, until=99, loss=lambda step: 2.0 - 0.01 * step)  # the others fall more than it rises
    run = fit_ae(tmp_path / "run", *CRITIC, *OFTEN, "loop.steps=44")
    assert events(run) == [(DOWN, "turned down"), (OFF, "ended")]
    assert record(run)["watch"][1]["why"].endswith(
        f"training continues from the weights of step {OFF}, the best so far by all losses together, although pixel has risen there too."
    )


def test_the_verdict_tells_what_was_done_and_is_of_the_published_weights(tmp_path, fit_ae, monkeypatch):
    plant(monkeypatch.setattr, until=99)
    run = fit_ae(tmp_path / "run", *CRITIC, *OFTEN, "loop.steps=31", "loop.publish=last")
    best = fit_ae(tmp_path / "best", *CRITIC, *OFTEN, "loop.steps=31")
    judged, verdict = record(run)["judged"], record(run)["judged"]["verdict"]
    assert (
        f"After step {DOWN}: pixel has risen from 0.92 around step 18 to 2 or more in its last three validations. The discriminator is turned down to 0.1 of its weight."
        in verdict
    )
    assert any(line.startswith(f"After step {OFF}: ") for line in verdict)
    assert weights.read_header(run / "model.safetensors")["step"] == record(run)["published"]["step"] == 31
    assert weights.read_header(best / "model.safetensors")["step"] == record(best)["published"]["step"] == BEST
    alone = fit_ae(tmp_path / "alone", *CRITIC, *OFTEN, f"loop.steps={BEST}", "adversarial.start=4")
    assert record(best)["judged"]["psnr"] == record(alone)["judged"]["psnr"] != judged["psnr"]


def test_after_it_ended_the_weights_are_the_best_ones_and_the_discriminator_rests(tmp_path, fit_ae, planted):
    run = fit_ae(tmp_path / "run", *CRITIC, *OFTEN, f"loop.steps={OFF}")
    best, (state, _) = weights.load(run / "snapshots" / "best.safetensors"), weights.load(run / "state.safetensors")
    assert best[1]["step"] == BEST
    for name, value in best[0].items():
        assert torch.equal(state[f"autoencoder.weights.{name}"], value) and torch.equal(state[f"autoencoder.average.{name}"], value)
    discriminator = {name: value for name, value in state.items() if name.startswith("discriminator.weights")}
    longer = fit_ae(run, *CRITIC, *OFTEN, f"loop.steps={OFF + 6}")
    later = weights.load(longer / "state.safetensors")[0]
    assert len(discriminator) > 3 and all(torch.equal(later[name], value) for name, value in discriminator.items())
    moved = [not torch.equal(later[f"autoencoder.weights.{name}"], value) for name, value in best[0].items()]
    assert any(moved), "the autoencoder trains on"


@pytest.mark.parametrize(("first", "volume", "said"), [(OFF + 4, 0.0, 1), (OFF + 4, 0.1, 0), (OFF + 4, 1.0, 0), (0, 0.0, 0)])
def test_a_resumed_run_says_that_its_discriminator_is_off(first, volume, said):
    sentences = []
    adversary = SimpleNamespace(volume=volume, turned_down_at=OFF - 1)
    Watchman(SimpleNamespace(adversary=adversary), None, SimpleNamespace(first=first), SimpleNamespace(say=sentences.append))
    assert [f"off since step {OFF:,}" in sentence and "--init" in sentence for sentence in sentences] == [True] * said


@pytest.mark.parametrize("stop", [DOWN - 2, DOWN, DOWN + 4, OFF, OFF + 2])
def test_a_run_that_is_resumed_around_a_decision_has_the_bits_of_an_undisturbed_one(tmp_path, fit_ae, planted, stop):
    whole = fit_ae(tmp_path / "whole", *CRITIC, *OFTEN, "loop.steps=36")
    parts = fit_ae(fit_ae(tmp_path / "parts", *CRITIC, *OFTEN, f"loop.steps={stop}"), *CRITIC, *OFTEN, "loop.steps=36")
    one, other = (weights.load(run / "state.safetensors")[0] for run in (whole, parts))
    learned = [name for name in one if not name.startswith("meter.")]
    assert len(learned) > 50 and all(torch.equal(one[name], other[name]) for name in learned)
    assert events(whole) == events(parts)


@pytest.mark.parametrize("stop", [29, 31])
def test_a_validation_that_is_due_only_because_a_run_ends_decides_nothing(tmp_path, fit_ae, planted, stop):
    words = [*CRITIC, *OFTEN, "loop.preview=23"]  # turned down after step 23, so that at 29 it has had its time
    whole = fit_ae(tmp_path / "whole", *words, "loop.steps=36")
    parts = fit_ae(tmp_path / "parts", *words, f"loop.steps={stop}")
    assert [what for _, what in events(parts)] == ["turned down", "ended"][: 1 if stop < OFF else 2]
    fit_ae(parts, *words, "loop.steps=36")
    assert events(whole) == events(parts) == [(23, "turned down"), (OFF, "ended")]
    one, other = (weights.load(run / "state.safetensors")[0] for run in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one if not name.startswith("meter."))


@pytest.mark.slow
def test_after_it_ended_the_averages_for_any_length_begin_again_with_the_best_weights(tmp_path, fit_ae, planted):
    words = [*CRITIC, *OFTEN, "loop.keep.averages=4"]
    run = fit_ae(tmp_path / "run", *words, f"loop.steps={OFF}")
    best, state = weights.load(run / "snapshots" / "best.safetensors")[0], weights.load(run / "state.safetensors")[0]
    for length in ("0.050", "0.100"):
        assert all(torch.equal(state[f"autoencoder.powers.{length}.{name}"], value) for name, value in best.items())
    assert steps_of(run / "averages") == [4, 8, 12, 16, OFF], "those from the best step on were of the weights that were given up"
    whole = fit_ae(tmp_path / "whole", *words, f"loop.steps={OFF + 6}")
    fit_ae(run, *words, f"loop.steps={OFF + 6}")
    for name in (each.name for each in (whole / "averages").iterdir()):
        assert (run / "averages" / name).read_bytes() == (whole / "averages" / name).read_bytes()
    assert steps_of(whole / "averages") == [4, 8, 12, 16, OFF + 2, OFF + 6]


def steps_of(folder):
    return sorted({int(file.name.partition("-")[0]) for file in folder.iterdir()})


def test_without_a_discriminator_a_rise_is_said_once(tmp_path, fit_ae, planted):
    run = fit_ae(tmp_path / "run", *OFTEN, "loop.steps=30")
    assert events(run) == [(DOWN, "risen")]
    assert "a lower loop.lr is likely to help" in record(run)["watch"][0]["why"]


@pytest.mark.slow
def test_a_loss_that_was_not_asked_for_may_rise(tmp_path, fit_ae, monkeypatch, towers):
    plant(monkeypatch.setattr)
    once = stage.validate
    monkeypatch.setattr(stage, "validate", lambda *given: once(*given) | {"val/features-squeezenet1_1": 1.0})
    words = [
        f"perceptual={{type: features, network: squeezenet1_1, weights: {towers['features']}}}",
        "image.size=32",
        "dataset.size=32",
        "loop.steps=26",
    ]
    assert events(fit_ae(tmp_path / "pixel", *OFTEN, *words)) == [(DOWN, "risen")]
    assert events(fit_ae(tmp_path / "weights", *OFTEN, *words, "losses.pixel_weight=0")) == []
    assert events(fit_ae(tmp_path / "shares", *OFTEN, *words, "losses.shares={perceptual: 1}")) == []


def test_it_is_off_by_a_key(tmp_path, fit_ae, planted):
    run = fit_ae(tmp_path / "run", *CRITIC, *OFTEN, "loop.steps=40", "loop.watch.bound=null")
    assert events(run) == [] and "watch" not in record(run)


def test_two_ranks_decide_as_one_does(tmp_path, fit_ae, planted, vqvae_words):  # a VAE's noise is another on each rank
    words = [*vqvae_words, *CRITIC, *OFTEN, "loop.steps=36", "adversarial.loss=vanilla", "loop.lr=1e-4", "loop.clip=null"]
    alone = fit_ae(tmp_path / "alone", *words)
    codes, said = together("fit-ae", tmp_path / "both", *words, program=[program.__file__])
    assert codes == [0, 0], said
    assert events(alone) == events(tmp_path / "both") == [(DOWN, "turned down"), (OFF, "ended")]
    one, both = (weights.load(run / "state.safetensors")[0] for run in (alone, tmp_path / "both"))
    assert one["adversary.turned"].tolist() == both["adversary.turned"].tolist() == [0.0, OFF - 1]
    for name, value in one.items():
        if name.startswith(("autoencoder.weights.", "discriminator.weights.")):
            torch.testing.assert_close(both[name], value, atol=5e-5, rtol=1e-3)
