"""More than one update of the discriminator in a step: by the same pictures, without a second look at what it knew."""

import json

import pytest
import torch
from two_ranks import together

from ldmctl.losses import objective
from ldmctl.losses.objective import teach_again
from ldmctl.losses.parts import build_parts, settled
from ldmctl.losses.rehearsal import rehearsal
from ldmctl.stages import fit_ae as stage
from ldmctl.storage import weights
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
HALF = Engine(torch.device("cpu"), torch.float16)  # what GPUs are asked for; a CPU computes it too, slowly
CRITIC = [
    "discriminator={type: patchgan, widths: [8]}",
    "adversarial={start: 1, warmup: 1, ramp: 2, loss: vanilla, lecam: 0.1}",
    "loop={steps: 6, lr: 1e-4, warmup: 1, clip: null}",
]  # steps so small that rounding does not grow


def state(run):
    return weights.load(run / "state.safetensors")[0]


def below(state, name):
    return {key: value for key, value in state.items() if key.startswith(name)}


def assert_alike(one, other, **tolerance):
    """Two states, exactly or up to rounding."""
    assert one.keys() == other.keys() and one
    for name in one:
        torch.testing.assert_close(other[name], one[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, fit_ae):
    """Folders by the number of updates, of runs in whose last step the discriminator learns for the first time."""
    return {
        count: fit_ae(
            tmp_path_factory.mktemp("updates") / "run",
            *CRITIC,
            "loop.steps=3",
            f"adversarial.updates={count}",
            "adversarial.start=2",
            "adversarial.warmup=0",
        )
        for count in (1, 2, 3)
    }


def test_each_is_a_step_of_the_optimizer_and_the_autoencoder_makes_one(runs):
    for count, run in runs.items():
        steps = {name: steps_of(run, name) for name in ("discriminator", "autoencoder")}
        assert steps == {"discriminator": {count}, "autoencoder": {3}}


def steps_of(run, name):
    """How often AdamW has moved the parameters of this network."""
    return {int(value) for key, value in below(state(run), f"{name}.optimizer.").items() if key.endswith(".step")}


def test_they_come_after_the_autoencoders_own_step_and_its_measurements(runs):
    once = state(runs[1])
    for run in (runs[2], runs[3]):
        for name in ("autoencoder.", "adversary."):
            assert_alike(below(once, name), below(state(run), name), rtol=0, atol=0)
        assert not torch.equal(first(once), first(state(run)))


def first(state):
    """The weights of a convolution of the discriminator."""
    return next(value for name, value in state.items() if name.startswith("discriminator.weights.") and value.ndim == 4)


def test_each_further_one_lowers_the_loss_on_the_pictures_of_the_step(tiny):
    config = settled(tiny("fit-ae", *CRITIC, "adversarial.updates=5", "adversarial.lecam=0", "loop.lr=1e-3"), {})
    parts = build_parts(config, None, CPU)
    losses, kept = [], parts.adversary.discriminator_loss
    parts.adversary.discriminator_loss = lambda *given, **more: noted(losses, kept(*given, **more))
    stage.backward(parts, config, torch.rand(8, 3, 16, 16), 3, 1.0, CPU, last=True)
    parts.discriminator.update(3)
    for _ in teach_again(parts, 3, CPU):
        parts.discriminator.update(3)
    assert len(losses) == 5 and losses == sorted(losses, reverse=True) and parts.shown == []


def noted(losses, found):
    losses.append(float(found[0].detach()))
    return found


def test_the_penalty_on_its_gradient_is_in_the_first_alone(tiny):
    config = settled(tiny("fit-ae", *CRITIC, "adversarial.updates=2", "adversarial.r1=1", "adversarial.r1_every=1"), {})
    parts = build_parts(config, None, CPU)
    facts, kept = [], parts.adversary.discriminator_loss

    def loss(*given, **more):
        found = kept(*given, **more)
        facts.append(set(found[1]))
        return found

    parts.adversary.discriminator_loss = loss
    stage.backward(parts, config, torch.rand(8, 3, 16, 16), 3, 1.0, CPU, last=True)
    assert list(teach_again(parts, 3, CPU)) == [None]
    assert ["r1" in each for each in facts] == [True, False] and all("lecam" in each for each in facts)


def test_micro_batches_teach_what_the_batch_teaches(tmp_path, fit_ae, vqvae_words):
    words = [*vqvae_words, *CRITIC, "adversarial.updates=3"]  # without the noise of a VAE, which each micro-batch draws anew
    whole, parts = fit_ae(tmp_path / "whole", *words), fit_ae(tmp_path / "parts", *words, "loop.micro=3")
    assert_alike(below(state(whole), "discriminator."), below(state(parts), "discriminator."), atol=2e-5, rtol=2e-4)
    assert_alike(below(state(whole), "autoencoder."), below(state(parts), "autoencoder."), atol=2e-5, rtol=2e-4)


def test_a_run_that_goes_on_ends_the_same(tmp_path, fit_ae):
    words = [*CRITIC, "adversarial.updates=2", "adversarial.augment=[translation]", "loop.micro=3"]
    whole = fit_ae(tmp_path / "whole", *words)
    fit_ae(tmp_path / "parts", *words, "loop.steps=4")
    fit_ae(tmp_path / "parts", *words)
    assert_alike(state(whole), state(tmp_path / "parts"), rtol=0, atol=0)


def test_a_run_without_the_key_goes_on_with_one(tmp_path, fit_ae):
    run = fit_ae(tmp_path / "run", *CRITIC, "loop.steps=4")
    file = run / "config.yaml"
    text = file.read_text()
    assert "  updates: 1\n" in text
    file.write_text(text.replace("  updates: 1\n", ""))
    fit_ae(run, *CRITIC)
    assert json.loads((run / "run.json").read_text())["step"] == 6


def test_a_rehearsal_makes_all_of_them_and_keeps_nothing(tiny, monkeypatch):
    config = settled(tiny("fit-ae", *CRITIC, "adversarial.updates=3"), {})
    made, kept = [], objective.teach
    monkeypatch.setattr(objective, "teach", lambda *given, **more: made.append(len(given[2].image)) or kept(*given, **more))
    step = rehearsal(config, None, CPU)
    step(torch.zeros(4, 3, 16, 16, dtype=torch.uint8))
    step(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert made == [4, 4, 4, 2, 2, 2]


def critic_in(engine, tiny, pictures):
    """The discriminator after a step of three updates that all autocast to the engine's dtype."""
    config = settled(tiny("fit-ae", *CRITIC, "adversarial.updates=3", "loop.lr=1e-3"), {})
    torch.manual_seed(0)
    parts = build_parts(config, None, engine)
    stage.backward(parts, config, pictures, 3, 1.0, engine, last=True)
    parts.discriminator.update(3)
    for _ in teach_again(parts, 3, engine):
        parts.discriminator.update(3)
    return parts.discriminator


def test_each_is_unscaled_in_float16(tiny):
    pictures = torch.rand(8, 3, 16, 16)
    whole, half = (critic_in(engine, tiny, pictures) for engine in (CPU, HALF))
    assert float(half.scale) == 2**12 and float(half._growth) == 3
    for one, other in zip(whole.parameters, half.parameters, strict=True):
        sizes = [learner.optimizer.state[each]["exp_avg"] for learner, each in ((whole, one), (half, other))]
        assert sizes[1].norm().item() == pytest.approx(sizes[0].norm().item(), rel=0.02, abs=1e-6)
        torch.testing.assert_close(other, one, atol=3.1e-3, rtol=0)  # AdamW goes by a gradient's sign at first: a step of 1e-3, three times


def test_one_that_overflows_in_float16_is_left_out_and_halves_the_scale(tiny):
    config = settled(tiny("fit-ae", *CRITIC, "adversarial.updates=3", "loop.lr=1e-3"), {})
    parts = build_parts(config, None, HALF)
    stage.backward(parts, config, torch.rand(8, 3, 16, 16), 3, 1.0, HALF, last=True)
    critic = parts.discriminator
    critic.update(3)
    critic.scale.fill_(2.0**40)
    learnt, found = [each.detach().clone() for each in critic.parameters], []
    for _ in teach_again(parts, 3, HALF):
        bad = float(critic.update(3)[1])
        found.append((bad, float(critic.scale), all(torch.equal(*pair) for pair in zip(learnt, critic.parameters, strict=True))))
        critic.scale.fill_(2.0**12)
    assert found == [(1.0, 2.0**39, True), (0.0, 2.0**12, False)]


@pytest.mark.slow
def test_two_ranks_teach_what_one_teaches(tmp_path, fit_ae, vqvae_words):
    words = [*vqvae_words, *CRITIC, "adversarial.updates=2", "loop.micro=2"]
    alone = fit_ae(tmp_path / "alone", *words)
    codes, said = together("fit-ae", tmp_path / "both", *words)
    assert codes == [0, 0], said
    assert_alike(below(state(alone), "discriminator."), below(state(tmp_path / "both"), "discriminator."), atol=2e-5, rtol=2e-4)
