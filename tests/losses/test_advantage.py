"""A discriminator is heard as far as it can tell real pictures from made ones."""

import math
import os

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from ldmctl.config.schemas.fit_ae import Adversarial
from ldmctl.losses.advantage import BLIND, SMOOTHING, Advantage
from ldmctl.losses.adversary import Adversary, discriminator_loss


def maps(value):
    return [torch.full((2, 1, 3, 3), float(value))]


def after(kind, *losses):
    advantage = Advantage(kind)
    for loss in losses:
        advantage.add(torch.tensor(float(loss)))
        advantage.after_step()
    return advantage


@pytest.mark.parametrize("kind", list(BLIND))
def test_no_constant_answer_has_a_lower_loss_than_the_blind_one(kind):
    losses = [float(discriminator_loss(kind, maps(answer), maps(answer))) for answer in torch.linspace(-2, 2, 401).tolist()]
    assert min(losses) == pytest.approx(BLIND[kind], abs=1e-6)


@pytest.mark.parametrize(("kind", "real", "fake"), [("hinge", 1, -1), ("vanilla", 40, -40), ("lsgan", 1, 0)])
def test_its_advantage_is_1_where_it_is_always_right_and_0_where_it_says_the_same_to_all(kind, real, fake):
    assert float(after(kind, discriminator_loss(kind, maps(real), maps(fake))).value) == pytest.approx(1, abs=1e-6)
    assert float(after(kind, BLIND[kind]).value) == pytest.approx(0, abs=1e-6)


def test_it_is_averaged_over_steps():
    assert float(after("hinge", 0.0, 1.0).value) == pytest.approx(SMOOTHING)


def test_its_weight_grows_with_its_advantage_up_to_the_whole():
    heard = [float(after("hinge", 1 - advantage).heard(0.1)) for advantage in (-0.5, 0.0, 0.05, 0.1, 0.8)]
    assert heard == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-5)


def test_before_the_first_measurement_it_is_not_heard():
    assert float(Advantage("hinge").heard(0.1)) == 0


def test_a_report_has_its_number_from_the_first_step_on():
    adversary = Adversary(Adversarial(start=0, warmup=0, ramp=0, loss="lsgan"), 100)
    found = []
    for sure in (0.5, 1.0):
        made, image = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
        _, facts = adversary.discriminator_loss(lambda both, sure=sure: [both.mean((2, 3), keepdim=True) * sure], made, image, step=0)
        adversary.after_step(0)
        found.append(float(facts["advantage"]))
    assert found == pytest.approx([0.5, 0.5])  # (0.5^2 / 2) of a blind 0.25, and what that was in the second step


def test_a_loss_that_is_not_finite_is_passed_over():
    assert float(after("hinge", 0.5, math.nan, math.inf).value) == pytest.approx(0.5)


def gradients(answer, **keys):
    """What a discriminator that gives `answer(picture)` adds to the gradient at a picture, step after step, relative to the pixel loss."""
    adversary = Adversary(Adversarial(start=0, warmup=0, ramp=0, augment=[], **keys), 100)
    found, generator = [], torch.Generator().manual_seed(0)
    for step in range(40):
        made = torch.randn(4, 1, 4, 4, generator=generator, requires_grad=True)
        image = torch.randn(4, 1, 4, 4, generator=generator) + 1
        losses = {"pixel": (made - image).abs().mean(), "adversarial": -answer(made).mean()}
        weights = {"pixel": 1.0, "adversarial": adversary.weight(step)}
        pixel = torch.autograd.grad(losses["pixel"], made, retain_graph=True)[0]
        total, _ = adversary.gradient(losses, weights, made, step=step)
        adversary.discriminator_loss(lambda both: [answer(both)], made, image, step=step)
        adversary.after_step(step)
        found.append(float((total - pixel).norm() / pixel.norm()))
    return found


def test_a_discriminator_that_always_says_0_is_turned_down_to_nothing():
    nothing_but_noise = lambda picture: 1e-3 * picture.sin()
    assert gradients(nothing_but_noise, advantage=0.0)[-1] == pytest.approx(0.1, rel=0.2), "however little it says, balancing makes it loud"
    assert max(gradients(nothing_but_noise)) < 0.002


def test_a_discriminator_that_can_tell_keeps_its_weight():
    assert gradients(lambda picture: picture.mean((2, 3), keepdim=True) * 2 - 1)[-1] == pytest.approx(0.1, rel=0.2)


def _rank(rank, folder):
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(after("hinge", 0.2 + 0.4 * rank).value, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_ranks_know_the_same_advantage(tmp_path):
    multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    assert [float(torch.load(tmp_path / f"{rank}.pt")) for rank in range(2)] == pytest.approx([0.6, 0.6])
