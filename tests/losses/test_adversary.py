"""Losses of the two players have the textbook's values, and each phase begins when it was said to."""

import math

import pytest
import torch
from torch import nn

from ldmctl.config.schemas.fit_ae import Adversarial
from ldmctl.errors import ConfigError
from ldmctl.losses.adversary import Adversary, discriminator_facts, discriminator_loss, generator_loss, in_whole_steps, start_step
from ldmctl.losses.parts import build_parts, settled
from ldmctl.losses.plateau import Plateau
from ldmctl.training.engine import Engine
from ldmctl.training.learner import learning_rate

KINDS = ["hinge", "vanilla", "lsgan"]


def maps(*values: float) -> list[torch.Tensor]:
    return [torch.full((2, 1, 3, 3), value) for value in values]


@pytest.mark.parametrize(
    ("kind", "of_discriminator", "of_generator"),
    [
        ("hinge", (0.5 + 0) / 2, 1.0),
        ("vanilla", (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(-1))) / 2, math.log1p(math.exp(1))),
        ("lsgan", (0.25 + 1) / 2, 4.0),
    ],
)
def test_losses_have_the_values_of_their_papers(kind, of_discriminator, of_generator):
    assert discriminator_loss(kind, maps(0.5), maps(-1.0)).item() == pytest.approx(of_discriminator, rel=1e-6)
    assert generator_loss(kind, maps(-1.0)).item() == pytest.approx(of_generator, rel=1e-6)


def test_the_hinge_is_flat_beyond_the_margin_and_linear_within():
    assert discriminator_loss("hinge", maps(1.5), maps(-1.5)).item() == 0
    assert discriminator_loss("hinge", maps(-1.0), maps(1.0)).item() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_discriminator_learns_to_tell_and_the_generator_to_deceive(kind):
    real, fake = (torch.full((1, 1, 2, 2), 0.1, requires_grad=True) for _ in range(2))
    discriminator_loss(kind, [real], [fake]).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()  # a step down raises real logits and lowers fake ones
    fake.grad = None
    generator_loss(kind, [fake]).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_map_counts_equally_whatever_its_size(kind):
    small, large = torch.full((2, 1, 2, 2), 0.3), torch.full((2, 1, 16, 16), -0.7)
    each = (generator_loss(kind, [small]) + generator_loss(kind, [large])) / 2
    assert generator_loss(kind, [small, large]).item() == pytest.approx(each.item())


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_half_precision_logits_are_float32(kind):
    logits = [torch.full((2, 1, 64, 64), 300.0, dtype=torch.float16)]  # 300^2 overflows in float16
    for loss in (discriminator_loss(kind, logits, logits), generator_loss(kind, logits)):
        assert loss.dtype == torch.float32 and loss.isfinite()


def test_facts_are_mean_logits_without_a_graph():
    facts = discriminator_facts([torch.ones(1, 1, 2, 2, requires_grad=True)], maps(-1.0, -3.0))
    assert facts["logits_real"] == 1 and facts["logits_fake"] == -2 and not facts["logits_real"].requires_grad


# -- when it starts ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "steps", "step"), [(0, 10, 0), (0.5, 4700, 2350), (9, 10, 9), (0.0, 10, 0), (0.9999, 10, 9), (1000.0, 4700, 1000)]
)
def test_a_start_is_a_step_or_a_share_of_the_run(start, steps, step):
    assert start_step(start, steps) == step


@pytest.mark.parametrize("start", [15_000, 4700])
def test_a_discriminator_that_never_starts_is_an_error(start):
    with pytest.raises(ConfigError, match=r"discriminator starts at step [0-9,]+ of 4,700: never\."):
        start_step(start, 4700)
    with pytest.raises(ConfigError, match=r"starts at step 15,000 of 4,700: never"):
        start_step(15_000, 4700)


def test_the_discriminator_learns_alone_and_then_its_weight_rises():
    adversary = Adversary(Adversarial(start=10, warmup=5, ramp=4, weight=0.8), 100)
    assert [adversary.trains_discriminator(step) for step in (9, 10, 99)] == [False, True, True]
    assert [adversary.weight(step) for step in (9, 10, 14)] == [0, 0, 0]
    assert [adversary.weight(step) for step in (15, 16, 17, 18, 99)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_shares_of_the_run_become_steps():
    steps = in_whole_steps(Adversarial(start=0.5, warmup=0.1, ramp=7), 200)
    assert (steps.start, steps.warmup, steps.ramp) == (100, 20, 7)
    assert in_whole_steps(Adversarial(start="auto"), 200).start == "auto"


def test_a_discriminator_that_is_never_heard_is_an_error():
    with pytest.raises(ConfigError, match=r"hears its discriminator from step 110 of 100 on: never"):
        Adversary(Adversarial(start=90, warmup=20), 100)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.4), (15, 0)])
def test_auto_that_may_come_too_late_to_be_heard_is_an_error(steps, warmup):
    with pytest.raises(ConfigError, match=r"at the latest, if adversarial.start=auto finds no plateau: never"):
        Adversary(Adversarial(start="auto", warmup=warmup), steps)
    Adversary(Adversarial(start="auto", warmup=0.3), 100)


def test_what_auto_has_seen_does_not_depend_on_the_number_of_ranks(monkeypatch):
    def best(world):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda loss: loss.mul_(world))
        plateau = Plateau(1000)
        for step in range(20):
            plateau.add(torch.tensor(0.5))
            plateau.after_step(step)
        return float(plateau.state[3])

    assert best(1) == best(4) == 10


def watched(losses, steps):
    """The first step that `auto` gives to the discriminator of a run with these losses."""
    adversary = Adversary(Adversarial(start="auto", warmup=0, ramp=0), steps)
    for step in range(steps):
        adversary.notice(torch.tensor(float(losses(step))), 1.0)
        if adversary.after_step(step):
            assert not adversary.trains_discriminator(step) and adversary.trains_discriminator(step + 1) and adversary.weight(step + 1) > 0
            return step + 1
    return None


def test_auto_waits_until_the_loss_has_levelled_off():
    assert watched(lambda step: max(1 - step / 500, 0.2), 2000) == 520  # it levels at 400, and two windows of 40 see that
    assert watched(lambda step: 1.0, 2000) == 120


def test_auto_does_not_wait_for_ever():
    assert watched(lambda step: 0.99**step, 1000) == 600


def test_a_loss_that_is_not_finite_is_no_plateau():
    assert watched(lambda step: math.nan, 1000) == 600


def test_what_auto_has_seen_is_in_the_state():
    first, losses = Plateau(1000), [1.0] * 45
    for step, loss in enumerate(losses):
        first.add(torch.tensor(loss))
        first.after_step(step)
    second = Plateau(4000)  # prolonged: the windows stay those it began with
    second.load_state_dict(first.state_dict())
    for each in (first, second):
        found = []
        for step in range(45, 80):
            each.add(torch.tensor(1.0))
            found.append(each.after_step(step))
        assert found.index(True) == 59 - 45


def test_the_discriminator_has_a_learning_rate_and_averages_of_its_own_on_the_schedule_of_the_run(tiny):
    words = ["loop.steps=10", "loop.lr=1e-3", "loop.warmup=4", "loop.decay=cosine", "loop.betas=[0.8,0.9]"]
    own = ["discriminator={type: patchgan, widths: [8]}", "adversarial.lr=4e-3", "adversarial.betas=[0.5,0.7]"]
    config = settled(tiny("fit-ae", *words, *own), {})
    learner = build_parts(config, None, Engine(torch.device("cpu"), torch.float32)).discriminator
    (group,) = learner.optimizer.param_groups
    assert group["betas"] == (0.5, 0.7)
    for step in (0, 3, 9):
        for parameter in learner.parameters:
            parameter.grad = torch.zeros_like(parameter)
        learner.update(step)
        assert group["lr"] == pytest.approx(4 * learning_rate(config.loop, step))


def test_the_step_of_auto_is_in_the_state():
    adversary = Adversary(Adversarial(start="auto", warmup=0), 100)
    adversary.begun.fill_(30)
    other = Adversary(Adversarial(start="auto", warmup=0), 100)
    assert not other.trains_discriminator(50)
    other.load_state_dict(adversary.state_dict())
    assert other.trains_discriminator(50) and not other.trains_discriminator(29)


def judged(**keys):
    """(discriminator, loss, facts) of a first step; pictures are 1 x 2 x 2, the discriminator is linear."""
    discriminator = nn.Conv2d(1, 1, 2, bias=False)
    nn.init.constant_(discriminator.weight, 0.5)
    adversary = Adversary(Adversarial(start=0, warmup=0, loss="lsgan", **keys), 10)
    made = torch.full((3, 1, 2, 2), 0.25, requires_grad=True)
    loss, facts = adversary.discriminator_loss(lambda x: [discriminator(x)], made, torch.full((3, 1, 2, 2), 0.5), step=0)
    loss.backward()
    assert made.grad is None
    return discriminator, loss, facts


def test_the_discriminators_loss_sends_no_gradient_to_the_reconstruction_and_is_the_textbooks():
    discriminator, loss, facts = judged()
    assert (facts["logits_real"], facts["logits_fake"]) == (1.0, 0.5)
    assert loss.item() == pytest.approx(0.125) and discriminator.weight.grad.any()


def test_r1_is_the_squared_gradient_at_real_pictures_weighed_for_the_steps_it_leaves_out():
    _, loss, facts = judged(r1=2.0, r1_every=4)
    assert facts["r1"].item() == pytest.approx(0.5)  # four weights of 0.5, squared, halved
    assert loss.item() == pytest.approx(0.125 + 2 * 4 * 0.5)


def test_the_generators_step_leaves_the_discriminator_without_gradient_and_frozen():
    discriminator = nn.Conv2d(1, 1, 2)
    adversary = Adversary(Adversarial(start=0, warmup=0), 10)
    made = torch.zeros(2, 1, 4, 4, requires_grad=True)
    adversary.generator_loss(listed(discriminator), made).backward()
    assert made.grad.any() and all(p.grad is None for p in discriminator.parameters())


def listed(discriminator):
    """A discriminator as the protocol wants it: a module that gives a list of maps."""

    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = discriminator

        def forward(self, image):
            return [self.inner(image)]

    return Listed()


@pytest.mark.parametrize("keys", [{"augment": ["colour", "translation", "cutout"]}, {"lecam": 0.1}])
def test_augmentation_and_lecam_go_through_both_players(keys):
    discriminator = listed(nn.Conv2d(3, 1, 3))
    adversary = Adversary(Adversarial(start=0, warmup=0, **keys), 10)
    made, image = torch.rand(2, 3, 16, 16, requires_grad=True), torch.rand(2, 3, 16, 16)
    for step in range(2):
        loss, facts = adversary.discriminator_loss(discriminator.requires_grad_(True), made, image, step=step)
        adversary.after_step(step)
        assert loss.isfinite() and ("lecam" in facts) == ("lecam" in keys)
    adversary.generator_loss(discriminator, made).backward()
    assert made.grad.any()
