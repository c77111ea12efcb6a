"""What the first stage promises: a step is the same in parts, on ranks and after an interruption, and nobody learns from another's loss."""

import json

import pytest
import torch
from two_ranks import together

from ldmctl import registry
from ldmctl.console import Console
from ldmctl.errors import ConfigError, DataError, MemoryShortage, MismatchError, MissingError, PluginError
from ldmctl.latents.codec import Codec
from ldmctl.losses import objective
from ldmctl.losses.parts import build_parts, settled
from ldmctl.stages import fit_ae as stage
from ldmctl.storage import weights
from ldmctl.training import order
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
CRITIC = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=1", "adversarial.warmup=1", "adversarial.ramp=2"]
CODES = ["autoencoder.revive=2"]
SMALL_STEPS = [
    "adversarial.loss=vanilla",
    "loop.steps=6",
    "loop.lr=1e-4",
    "loop.warmup=1",
    "loop.clip=null",
]  # steps so small that rounding does not grow; the hinge's gradient of a bias is a difference of equals


def state(run):
    return weights.load(run / "state.safetensors")[0]


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_close(one, other):
    """Two states, up to rounding."""
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], atol=2e-5, rtol=2e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("learning", ["gradient", "ema"])
def test_an_accumulation_of_4_equals_the_batch_of_4x_with_codebook_and_discriminator(tmp_path, fit_ae, vqvae_words, learning):
    words = [*vqvae_words, *CODES, *CRITIC, *SMALL_STEPS, f"autoencoder.learning={learning}"]
    whole = fit_ae(tmp_path / "whole", *words)
    parts = fit_ae(tmp_path / "parts", *words, "loop.micro=2")
    assert_close(state(whole), state(parts))
    assert state(whole)["adversary.balance.ratio"] > 0, "the adversarial phase was reached"
    assert state(whole)["meter.whole.codes_counts"].sum() == 40 * 64, "an epoch of 40 pictures of 8x8 codes was counted"


def test_two_ranks_of_4_learn_what_one_rank_of_8_learns_with_codebook_and_discriminator(tmp_path, fit_ae, vqvae_words):
    words = [*vqvae_words, *CODES, *CRITIC, *SMALL_STEPS]
    alone = fit_ae(tmp_path / "alone", *words)
    codes, said = together("fit-ae", tmp_path / "both", *words)
    assert codes == [0, 0], said
    assert_close(state(alone), state(tmp_path / "both"))
    for one, other in zip(rows(alone), rows(tmp_path / "both"), strict=True):
        if "autoencoder/gradient" in one:
            assert one["autoencoder/gradient"] == pytest.approx(other["autoencoder/gradient"], rel=1e-3)


def test_the_phases_are_counted_in_optimizer_steps_and_not_in_micro_batches(tmp_path, fit_ae):
    run = fit_ae(tmp_path / "run", *CRITIC, "adversarial.start=2", "loop.steps=6", "loop.micro=2")
    judged = [row["step"] for row in rows(run) if "discriminator/loss" in row]
    heard = [row["step"] for row in rows(run) if "adversarial" in row]
    assert judged == [3, 4, 5, 6] and heard == [4, 5, 6]


@pytest.mark.parametrize("start", ["adversarial.start=0.5", "adversarial.start=20"])
def test_a_run_that_is_shortened_before_its_discriminator_began_ends_without_it(tmp_path, tiny, fit_ae, start, capsys):
    words = [*CRITIC, start, "adversarial.warmup=2"]
    stops = tiny("fit-ae", *words, "loop.steps=40", "loop.save=3")
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        update = stage.Training.update
        patch.setattr(stage.Training, "update", lambda self, step, *more: interrupt() if step == 4 else update(self, step, *more))
        stage.fit_ae(stops, tmp_path / "run", console=Console(quiet=True))
    stage.fit_ae(tiny("fit-ae", *words, "loop.steps=6", "loop.save=3"), tmp_path / "run", console=Console())
    assert "The run ends at step 6, before its discriminator is heard from step 22 on." in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["step"] == 6
    with pytest.raises(ConfigError, match="never"):
        fit_ae(tmp_path / "new", *CRITIC, "adversarial.start=20", "loop.steps=6")


def interrupt():
    raise KeyboardInterrupt


def test_every_report_says_logits_weight_and_shares(tmp_path, fit_ae):
    last = rows(fit_ae(tmp_path / "run", *CRITIC, "loop.steps=6"))[-1]
    assert {"discriminator/logits_real", "discriminator/logits_fake", "adversarial_weight", "adversarial_scale"} <= last.keys()
    assert last["pixel_share"] + last["adversarial_share"] == pytest.approx(1)


def one_step(tiny, *words, step=5, perceptual=None):
    """The parts of a run, with the gradients of one step."""
    config = tiny("fit-ae", *CRITIC, "loop.steps=8", *words)
    config = settled(config, {})
    parts = build_parts(config, perceptual, CPU)
    image = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    parts.adversary.balance.ratio.fill_(1.0)
    parts.adversary.advantage.value.fill_(1.0)
    order.reseed("test")
    facts = objective.backward(parts, config, image, step, 1.0, CPU, last=True)
    return parts, facts


def test_a_frozen_part_of_a_discriminator_stays_frozen(tiny, monkeypatch):
    from ldmctl.blocks import Patches

    begun = Patches.__init__

    def frozen(self, *given, **more):
        begun(self, *given, **more)
        self.layers[0].requires_grad_(False)

    monkeypatch.setattr(Patches, "__init__", frozen)
    parts, _ = one_step(tiny)
    assert [parameter.grad is None for parameter in parts.discriminator.module.parameters()] == [True, True, False, False]


def gradients(learner):
    return {name: None if p.grad is None else p.grad.clone() for name, p in learner.module.named_parameters()}


def test_the_generators_gradient_does_not_leak_into_the_discriminators_step(tiny):
    loss = "adversarial.loss=vanilla"  # hinge's gradients of the last bias cancel, but for rounding
    heard, facts = one_step(tiny, loss)
    alone, silent = one_step(tiny, loss, "adversarial.weight=0")
    assert "adversarial" in facts and "adversarial" not in silent
    for name, gradient in gradients(heard.discriminator).items():
        torch.testing.assert_close(gradient, gradients(alone.discriminator)[name], msg=name)
        assert gradient.any()


def test_the_discriminators_loss_does_not_reach_the_autoencoder(tiny):
    with_critic, _ = one_step(tiny, "adversarial.weight=0")
    without, _ = one_step(tiny, "adversarial.start=7", "adversarial.warmup=0", step=2)
    for name, gradient in gradients(with_critic.model).items():
        torch.testing.assert_close(gradient, gradients(without.model)[name], msg=name)


def test_the_adversarial_loss_changes_what_the_autoencoder_learns(tiny):
    heard, _ = one_step(tiny)
    alone, _ = one_step(tiny, "adversarial.weight=0")
    assert any((gradients(heard.model)[name] - gradient).abs().max() > 1e-6 for name, gradient in gradients(alone.model).items())


def test_decoder_only_training_leaves_latents_as_they_are(tmp_path, fit_ae, vqvae_run, vqvae_words):
    run = fit_ae(tmp_path / "run", *vqvae_words, *CODES, f"init={vqvae_run}", "train=decoder", "loop.steps=6", "loop.preview=2")
    before, after = (weights.load(folder / "model.safetensors")[0] for folder in (vqvae_run, run))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}


def test_a_run_begins_with_the_weights_of_another_and_their_average(tmp_path, fit_ae, vae_run):
    run = fit_ae(tmp_path / "run", f"init={vae_run}", "loop.steps=1", "loop.lr=1e-12")
    before, after = (weights.load(folder / "model.safetensors")[0] for folder in (vae_run, run))
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name])


def test_checkpointing_changes_nothing_that_is_learned(tmp_path, fit_ae):
    plain, again = (fit_ae(tmp_path / name, "loop.steps=3", f"loop.checkpointing={name}") for name in ("false", "true"))
    one, other = state(plain), state(again)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_automatic_micro_batch_changes_nothing_that_is_learned(tmp_path, fit_ae, vqvae_words):
    words = [*vqvae_words, *CRITIC, *SMALL_STEPS]
    whole, found = (fit_ae(tmp_path / name, *words, f"loop.micro={micro}") for name, micro in (("whole", "null"), ("auto", "auto")))
    one, other = state(whole), state(found)
    assert all(torch.equal(one[name], other[name]) for name in one), "there was room for the whole batch"


def test_without_room_for_one_picture_the_knobs_are_named(tmp_path, fit_ae):
    with pytest.raises(MemoryShortage, match=r"A step of one picture needs .* GiB.*loop\.checkpointing=true needs less") as caught:
        fit_ae(tmp_path / "run", "loop.micro=auto", "machine.memory=0.001")
    assert caught.value.exit_code == 7


def test_the_equivariance_penalty_is_one_of_the_terms_and_changes_the_gradient(tmp_path, fit_ae, vqvae_words):
    plain, bound = (fit_ae(tmp_path / str(weight), *vqvae_words, f"losses.equivariance_weight={weight}") for weight in (0, 0.5))
    assert "equivariance" not in rows(plain)[-1] and rows(bound)[-1]["equivariance"] > 0
    one, other = state(plain), state(bound)
    assert one.keys() == other.keys(), "what is around the autoencoder has no weights"
    assert not torch.equal(one["autoencoder.weights.encoder.conv_in.weight"], other["autoencoder.weights.encoder.conv_in.weight"])
    counted = [{name: run[name] for name in run if name.endswith(("uses", "counts"))} for run in (one, other)]
    assert [each["meter.counts.codes_counts"].sum() for each in counted] == [4 * 8 * 64] * 2, "turned pictures are not counted"


def test_a_prolonged_run_keeps_the_steps_of_its_phases(tmp_path, fit_ae):
    words = [*CRITIC, "adversarial.start=0.5", "adversarial.warmup=0.25", "adversarial.ramp=0.25"]
    run = fit_ae(tmp_path / "run", *words, "loop.steps=8")
    fit_ae(run, *words, "loop.steps=16")
    assert [row["step"] for row in rows(run) if "adversarial" in row] == [*range(7, 17)]


def test_another_share_of_a_run_that_goes_on_is_named(tmp_path, fit_ae):
    words = [*CRITIC, "adversarial.start=0.5", "adversarial.warmup=0.25", "loop.steps=8"]
    run = fit_ae(tmp_path / "run", *words, "loop.save=2")
    with pytest.raises(MismatchError, match=r"adversarial.start: 4 there, 2 asked for"):
        fit_ae(run, *words, "adversarial.start=0.25")
    with pytest.raises(MismatchError, match=r"adversarial.warmup: 2 there, 1 asked for"):
        fit_ae(run, *words, "adversarial.warmup=1")
    fit_ae(run, *words, "adversarial.start=4")  # the same step by another name
    fit_ae(run, *words, "loop.steps=10")  # nothing of these commands has been kept


@pytest.mark.slow
def test_auto_starts_the_discriminator_and_a_resumed_run_knows_it(tmp_path, fit_ae):
    words = [*CRITIC, "adversarial.start=auto", "loop.lr=1e-9"]
    run = fit_ae(tmp_path / "run", *words, "loop.steps=120")  # windows of 20 steps: the third sees no gain for the second time
    assert int(state(run)["adversary.begun"]) == 60
    fit_ae(run, *words, "loop.steps=122")
    assert [row["step"] for row in rows(run) if "discriminator/loss" in row] == [*range(61, 123)]


@pytest.mark.parametrize("stop", [4, 5])
def test_a_run_that_goes_on_in_the_adversarial_phase_ends_the_same(tmp_path, fit_ae, vqvae_words, stop):
    words = [
        *vqvae_words,
        *CODES,
        *CRITIC,
        "adversarial.lecam=0.1",
        "adversarial.r1=0.1",
        "adversarial.r1_every=2",
        "autoencoder.learning=ema",
    ]
    whole = fit_ae(tmp_path / "whole", *words, "loop.steps=9")
    fit_ae(tmp_path / "parts", *words, f"loop.steps={stop}")
    fit_ae(tmp_path / "parts", *words, "loop.steps=9")
    one, other = state(whole), state(tmp_path / "parts")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_decoder_alone_needs_an_encoder_to_keep(tmp_path, fit_ae):
    with pytest.raises(ConfigError, match=r"train=decoder .*--init"):
        fit_ae(tmp_path / "run", "train=decoder")


# -- what other trainers got wrong ---------------------------------------------------------


def counted(module):
    """The batch sizes that a module's forward is called with, as a list that grows."""
    sizes = []
    module.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    return sizes


def test_a_step_runs_the_autoencoder_once_and_the_discriminator_twice(tiny):
    config = settled(tiny("fit-ae", *CRITIC, "loop.steps=8"), {})
    parts = build_parts(config, None, CPU)
    runs, looks = counted(parts.model.module), counted(parts.discriminator.module)
    objective.backward(parts, config, torch.zeros(8, 3, 16, 16), 5, 1.0, CPU, last=True)
    assert runs == [8], "once for both players"
    assert looks == [8, 16], "once to teach, once to learn, real and made pictures together"


def test_before_its_start_the_discriminator_costs_nothing(tiny):
    config = settled(tiny("fit-ae", *CRITIC, "adversarial.start=6", "adversarial.warmup=0", "loop.steps=8"), {})
    parts = build_parts(config, None, CPU)
    looks = counted(parts.discriminator.module)
    facts = objective.backward(parts, config, torch.zeros(8, 3, 16, 16), 5, 1.0, CPU, last=True)
    assert looks == [] and not {"adversarial", "discriminator/loss"} & facts.keys()


def test_the_default_discriminator_joins_late_and_has_no_batch_norm(tiny):
    parts, _ = one_step(tiny)
    assert not [each for each in parts.discriminator.module.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    assert tiny("fit-ae").adversarial.start == 0.5


def test_an_epochs_end_makes_no_step_of_part_of_a_batch(tmp_path, tiny):
    config = tiny("fit-ae", "loop.batch=16", "loop.steps=6")  # 40 pictures: the third batch continues in the next epoch
    stream = list(stage.training_batches(stage.open_pictures(config, "train"), config.loop, CPU, first=0))
    assert [len(batch.image) for _, batch in stream] == [16] * 6
    seen = torch.cat([items for items, _ in stream])
    assert seen[:40].sort().values.tolist() == seen[40:80].sort().values.tolist() == [*range(40)]


def test_weights_stay_float32_when_networks_compute_in_bfloat16(tmp_path, fit_ae, vqvae_words):
    run = fit_ae(tmp_path / "run", *vqvae_words, *CRITIC, "machine.precision=bf16")
    halves = {name: value.dtype for name, value in state(run).items() if value.is_floating_point() and value.dtype != torch.float32}
    assert len(state(run)) > 100 and not halves


def test_the_average_moves_once_a_step_and_not_with_the_discriminator(tmp_path, fit_ae):
    words = ["loop.ema=0.5", "loop.lr=1e-3", *CRITIC, "adversarial.weight=0"]
    together, alone = fit_ae(tmp_path / "together", *words), fit_ae(tmp_path / "alone", *words, "discriminator=null")
    one, other = weights.load(together / "model.safetensors")[0], weights.load(alone / "model.safetensors")[0]
    assert all(torch.equal(one[name], other[name]) for name in one)


class Gap(torch.nn.Module):
    """A perceptual loss that minds the left half alone."""

    title = "gap"

    def forward(self, image, target):
        return (image - target)[..., : image.shape[-1] // 2].square().flatten(1).mean(1)


def test_the_perceptual_loss_has_a_gradient_and_is_reported_under_its_own_name(tiny):
    config = tiny("fit-ae", "losses.pixel_weight=0", "perceptual=features")
    parts = build_parts(config, Gap(), CPU)
    facts = objective.backward(parts, config, torch.rand(8, 3, 16, 16), 0, 1.0, CPU, last=True)
    assert parts.model.module.decoder.conv_out.weight.grad.abs().sum() > 0
    assert facts["gap"] > 0 and "gap_share" in facts and not [name for name in facts if "perceptual" in name]


def test_a_run_keeps_its_losses_though_the_weights_of_one_come_or_go(tmp_path, fit_ae, monkeypatch):
    build, words = registry.build, ["perceptual=features", "losses.perceptual_missing=skip"]

    def missing(kind, *given, **more):
        if kind == "perceptual":
            raise MissingError("There are no weights.")
        return build(kind, *given, **more)

    def there(kind, *given, **more):
        return Gap() if kind == "perceptual" else build(kind, *given, **more)

    monkeypatch.setattr(registry, "build", missing)
    without = fit_ae(tmp_path / "without", *words, "loop.steps=2")
    monkeypatch.setattr(registry, "build", there)
    fit_ae(without, "losses.perceptual_missing=skip", "perceptual=null", "loop.steps=3")
    fit_ae(without, *words, "loop.steps=4")
    assert len(rows(without)) >= 4 and not [row for row in rows(without) if "gap" in row]
    run = fit_ae(tmp_path / "with", *words, "loop.steps=2")
    monkeypatch.setattr(registry, "build", missing)
    with pytest.raises(MissingError, match=r"There are no weights.*\n.*keeps its losses"):
        fit_ae(run, *words, "loop.steps=4")


# -- what would only be noticed much later -----------------------------------------------


def test_a_discriminator_that_pictures_are_too_small_for_is_refused_before_the_first_step(tmp_path, fit_ae):
    with pytest.raises(PluginError, match="needs pictures of at least 64x64 and got 16x16"):
        fit_ae(tmp_path / "ae", "discriminator={type: patchgan, widths: [4, 4, 4, 4, 4]}", "adversarial.start=3")
    assert not (tmp_path / "ae").exists()


def test_pictures_too_small_for_the_perceptual_loss_are_refused_before_the_first_step(tmp_path, fit_ae, towers):
    words = ["image.size=12", f"perceptual={{type: lpips, weights: {towers['lpips']}}}"]
    with pytest.raises(DataError, match="lpips needs pictures of at least 16 x 16 pixels, these have 12 x 12"):
        fit_ae(tmp_path / "ae", *words)
    assert not (tmp_path / "ae").exists()
    assert (fit_ae(tmp_path / "same", *words, "autoencoder=identity") / "model.safetensors").exists(), "it learns nothing by the loss"


def test_balancing_at_a_last_layer_that_is_not_there_is_refused_before_the_first_step(tmp_path, fit_ae, monkeypatch):
    from ldmctl_plugins.autoencoders.vae import VAE

    monkeypatch.delattr(VAE, "last_layer")
    with pytest.raises(ConfigError, match="balance=last-layer needs an autoencoder that has one, vae has not"):
        fit_ae(tmp_path / "ae", *CRITIC, "adversarial.balance=last-layer")


@pytest.mark.parametrize(("words", "watches"), [([], "perceptual"), (["losses.perceptual_weight=0"], "pixel")])
def test_auto_waits_for_a_loss_that_is_learned_from(tiny, words, watches):
    parts, facts = one_step(tiny, "adversarial.start=auto", "loop.steps=100", "perceptual=features", *words, perceptual=Gap(), step=0)
    (noticed,) = parts.adversary.plateau._added
    weight = {"perceptual": "gap", "pixel": "pixel"}[watches]
    assert noticed == pytest.approx(float(facts[weight])) and float(facts["pixel"]) != pytest.approx(float(facts["gap"]))


def test_pictures_are_judged_no_more_at_once_than_a_step_has_room_for(tmp_path, fit_ae, monkeypatch):
    seen, encode = [], Codec._run
    monkeypatch.setattr(
        Codec, "_run", lambda self, network, x, scale=1: (seen.append((self.at_once, len(x))), encode(self, network, x, scale))[1]
    )
    fit_ae(tmp_path / "ae", "loop.steps=2", "loop.preview=1", "loop.micro=2")
    assert seen and all(count <= 2 for at_once, count in seen if at_once is None)
    assert {at_once for at_once, _ in seen} == {None, 2}
