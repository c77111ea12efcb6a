"""Each loss has its share of the gradient at the reconstruction, whatever its scale."""

import json

import pytest
import torch
from torch import nn
from two_ranks import TINY, together

from ldmctl.config.presets import compose
from ldmctl.config.schemas.fit_ae import FitAE, Losses
from ldmctl.console import Console
from ldmctl.errors import ConfigError
from ldmctl.losses.objective import judged_loss
from ldmctl.losses.shares import Shares
from ldmctl.stages.fit_ae import fit_ae as stage
from ldmctl.storage import weights

GOALS = {"pixel": 0.5, "perceptual": 0.4, "adversarial": 0.1}
RUN = [
    "losses.shares={pixel: 0.6, adversarial: 0.4}",
    "discriminator={type: patchgan, widths: [8]}",
    "adversarial.loss=vanilla",
    "adversarial.start=1",
    "adversarial.warmup=1",
    "adversarial.ramp=2",
    "loop.steps=6",
    "loop.lr=1e-4",
    "loop.clip=null",
]
SCALES = {"pixel": 1.0, "perceptual": 100.0, "adversarial": 0.01}


def toy(generator, decoder, scales=SCALES):
    """(losses of scales 1, 100 and 0.01, made) of a batch."""
    made, target = (torch.randn(8, 3, 8, 8, generator=generator) for _ in range(2))
    made = decoder(made)
    direction = torch.randn(made.shape, generator=generator)
    return {
        "pixel": scales["pixel"] * (made - target).abs().mean(),
        "perceptual": scales["perceptual"] * (made.tanh() - target.tanh()).square().mean(),
        "adversarial": scales["adversarial"] * (direction * made).mean(),
    }, made


def train(steps, *, goals=GOALS, scales=SCALES, heard=1.0):
    torch.manual_seed(0)
    generator, decoder, shares = torch.Generator().manual_seed(0), nn.Conv2d(3, 3, 3, padding=1), Shares()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=1e-2)
    for _ in range(steps):
        losses, made = toy(generator, decoder, scales)
        gradient, facts = shares.gradient(losses, goals, made, heard=heard)
        optimizer.zero_grad()
        made.backward(gradient)
        optimizer.step()
        shares.after_step()
    return facts, shares


def test_three_losses_of_scales_1_100_and_a_hundredth_reach_their_shares_within_5_percent():
    facts, _ = train(60)
    assert {name: float(facts[f"{name}_share"]) for name in GOALS} == pytest.approx(GOALS, rel=0.05)


def test_they_need_not_add_up_to_one():
    facts, _ = train(60, goals={name: 7 * goal for name, goal in GOALS.items()})
    assert {name: float(facts[f"{name}_share"]) for name in GOALS} == pytest.approx(GOALS, rel=0.05)


def test_the_pixel_loss_keeps_weight_1_so_that_penalties_keep_theirs():
    facts, _ = train(20)
    assert float(facts["pixel_scale"]) == 1


def test_a_loss_of_another_scale_makes_the_same_gradient():
    torch.manual_seed(0)
    found = []
    for scale in (1.0, 1e4):
        generator, decoder, shares = torch.Generator().manual_seed(0), nn.Conv2d(3, 3, 3, padding=1), Shares()
        nn.init.eye_(decoder.weight[:, :, 1, 1].data)
        with torch.no_grad():
            decoder.weight.fill_(0.1)
            decoder.bias.zero_()
        for _ in range(2):
            losses, made = toy(generator, decoder, {**SCALES, "perceptual": scale})
            gradient, _ = shares.gradient(losses, GOALS, made)
            shares.after_step()
        found.append(gradient)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-8)


def test_without_a_pixel_share_the_perceptual_loss_is_the_one_that_counts_from_the_first_step():
    losses, made = toy(torch.Generator().manual_seed(0), nn.Conv2d(3, 3, 3, padding=1))
    expected = torch.autograd.grad(losses["perceptual"], made, retain_graph=True)[0]
    gradient, facts = Shares().gradient(losses, {"pixel": 0.0, "perceptual": 1.0, "adversarial": 0.5}, made)
    torch.testing.assert_close(gradient, expected)
    assert "pixel_share" not in facts


def test_where_a_perceptual_loss_is_not_there_the_adversarial_one_has_no_more_than_its_share():
    torch.manual_seed(0)
    generator, shares = torch.Generator().manual_seed(0), Shares()
    for _ in range(30):
        made = torch.randn(4, 3, 8, 8, generator=generator, requires_grad=True)
        losses = {"pixel": 3 * made.abs().mean(), "adversarial": made.sin().mean()}
        _, facts = shares.gradient(losses, GOALS, made)
        shares.after_step()
    assert {name: float(facts[f"{name}_share"]) for name in losses} == pytest.approx({"pixel": 0.9, "adversarial": 0.1}, rel=0.05)


def test_a_discriminator_that_cannot_tell_has_no_share(tmp_path, fit_ae, monkeypatch):
    words = [*RUN, "loop.steps=12", "loop.report=1", "adversarial.lr=1e-9"]  # it stays as it began
    heard = {}
    for name, advantage in (("guarded", "0.1"), ("unguarded", "0")):
        run = fit_ae(tmp_path / name, *words, f"adversarial.advantage={advantage}")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        heard[name] = [line["adversarial_share"] for line in lines if line["step"] > 6 and "adversarial_share" in line]
        assert all(line["discriminator/advantage"] < 0.02 for line in lines if "discriminator/advantage" in line)
    assert len(heard["guarded"]) >= 5 and max(heard["guarded"]) < 0.1 and min(heard["unguarded"]) > 0.3


def test_an_adversarial_loss_that_is_heard_by_half_has_half_of_its_share():
    facts, _ = train(60, heard=0.5)
    assert float(facts["adversarial_share"]) == pytest.approx(0.05 / 0.95, rel=0.05)


def test_an_adversarial_gradient_that_is_not_finite_counts_nothing():
    shares = train(3)[1]
    losses, made = toy(torch.Generator().manual_seed(0), nn.Conv2d(3, 3, 3, padding=1))
    gradient, facts = shares.gradient({**losses, "adversarial": (made * float("nan")).mean()}, GOALS, made)
    before = shares.norms.clone()
    shares.after_step()
    assert gradient.isfinite().all() and facts["adversarial_share"] == 0 and shares.norms[2] == before[2]


def test_micro_batches_are_measured_as_one_large_batch_is():
    def norms(parts):
        torch.manual_seed(0)
        decoder, given, target = nn.Conv2d(2, 3, 3, padding=1), torch.randn(8, 2, 6, 6), torch.randn(8, 3, 6, 6)
        shares = Shares()
        for rows in torch.arange(8).chunk(parts):
            image = decoder(given[rows])
            losses = {"pixel": (image - target[rows]).square().mean(), "adversarial": image.sin().mean()}
            shares.gradient(losses, GOALS, image, share=1 / parts)
        shares.after_step()
        return shares.norms

    torch.testing.assert_close(norms(4), norms(1))


def test_what_was_measured_is_in_the_state():
    _, shares = train(3)
    other = Shares()
    other.load_state_dict(shares.state_dict())
    torch.testing.assert_close(other.norms, shares.norms)
    assert (other.norms > 0).all()


def test_with_shares_a_validation_is_judged_by_relative_changes():
    losses = Losses(shares={"pixel": 0.5, "perceptual": 0.5})
    low, high = judged_loss({"pixel": 0.1, "perceptual": 40.0}, losses), judged_loss({"pixel": 0.2, "perceptual": 20.0}, losses)
    assert low == pytest.approx(high) == pytest.approx(2.0)
    assert judged_loss({"pixel": 0.1, "perceptual": 40.0}, Losses()) == pytest.approx(40.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["losses.shares={adversarial: 0.1}"], "nothing would hold a reconstruction to its picture"),
        (["losses.shares={pixel: 1}", "perceptual=lpips"], "says nothing of perceptual"),
        (["losses.shares={pixel: 1}", "discriminator=patchgan"], "says nothing of adversarial"),
        (["losses.shares={pixel: 1, adversarial: 1}", "discriminator=patchgan", "adversarial.balance=none"], "has no effect"),
        *(
            (
                ["losses.shares={pixel: 1, adversarial: 1}", "discriminator=patchgan", f"adversarial.balance_{key}"],
                f"{key[:3]}.* has no effect",
            )
            for key in ("every=2", "smoothing=0.5", "max=10", "growth=3")
        ),
        (["losses.shares={pixel: -1}"], "losses.shares"),
        (["losses.shares={pixels: 1}"], "losses.shares"),
    ],
)
def test_shares_that_cannot_be_meant_are_refused(tiny, words, said):
    with pytest.raises(ConfigError, match=said):
        tiny("fit-ae", *words)


def test_a_run_made_before_growth_was_bounded_may_take_shares(tmp_path, tiny, fit_ae):
    words = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=1", "adversarial.warmup=1"]
    run = fit_ae(tmp_path / "run", *words, "adversarial.balance_growth=null")
    file = run / "config.yaml"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "balance_growth" not in line))
    shares = ["losses.shares={pixel: 0.9, adversarial: 0.1}"]
    config, _ = compose(FitAE, config=str(TINY / "fit-ae.yaml"), overrides=[*words, *shares, "loop.steps=6"], out=run)
    assert config.adversarial.balance_growth is None
    stage(config, run, console=Console(quiet=True))
    tiny("fit-ae", *words, *shares), tiny("fit-ae", *shares, "adversarial.balance_max=10")  # at their defaults, or without a discriminator


def learned(run):
    return {name: value for name, value in weights.load(run / "state.safetensors")[0].items() if not name.startswith("meter.")}


def test_a_run_with_shares_that_is_resumed_has_the_bits_of_an_undisturbed_one(tmp_path, fit_ae):
    whole = learned(fit_ae(tmp_path / "whole", *RUN))
    parts = learned(fit_ae(fit_ae(tmp_path / "parts", *RUN, "loop.steps=4"), *RUN))
    assert (whole["shares.norms"][[0, 2]] > 0).all() and all(torch.equal(parts[name], value) for name, value in whole.items())


def test_a_run_keeps_its_losses_at_their_shares_within_5_percent(tmp_path, fit_ae):
    """Of a discriminator that learns slowly: norms are averaged over about ten steps, and lag behind those that grow from step to step."""
    words = [*RUN, "adversarial.advantage=0", "adversarial.lr=1e-5", "loop.steps=60", "loop.report=20"]
    reports = [json.loads(line) for line in (fit_ae(tmp_path / "run", *words) / "metrics.jsonl").read_text().splitlines()]
    late = {row["step"]: [row["pixel_share"], row["adversarial_share"]] for row in reports if "pixel_share" in row and row["step"] > 20}
    assert late == {40: pytest.approx([0.6, 0.4], rel=0.05), 60: pytest.approx([0.6, 0.4], rel=0.05)}


@pytest.mark.slow
def test_two_ranks_share_as_one_does(tmp_path, fit_ae, vqvae_words):  # a VAE's noise is another on each rank
    alone = learned(fit_ae(tmp_path / "alone", *vqvae_words, *RUN))
    codes, said = together("fit-ae", tmp_path / "both", *vqvae_words, *RUN)
    assert codes == [0, 0], said
    both = learned(tmp_path / "both")
    torch.testing.assert_close(both["shares.norms"], alone["shares.norms"], rtol=1e-3, atol=0)
    for name in (name for name in alone if name.startswith("autoencoder.weights.")):
        torch.testing.assert_close(both[name], alone[name], atol=2e-5, rtol=2e-4, msg=lambda text, name=name: f"{name}: {text}")
