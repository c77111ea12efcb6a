"""Losses of the two players have the textbook's values, and the balance at the reconstruction is what it says."""

import math
import os

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from ldmctl.adversarial import balanced_gradient, discriminator_facts, discriminator_loss, generator_loss, start_step
from ldmctl.errors import ConfigError

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


# -- the balance ---------------------------------------------------------------


def picture() -> tuple[nn.Conv2d, torch.Tensor, torch.Tensor]:
    """A decoder, what it makes, and what it should have made."""
    torch.manual_seed(0)
    decoder = nn.Conv2d(2, 3, 3, padding=1)
    return decoder, decoder(torch.randn(4, 2, 8, 8)), torch.randn(4, 3, 8, 8)


def three_losses(image, target, loudness=1.0):
    opinion = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return {
        "pixel": (image - target).abs().mean(),
        "perceptual": (image - target).pow(4).mean(),
        "adversarial": loudness * (opinion * image).mean(),
    }


def gradient_of(loss, image):
    return torch.autograd.grad(loss, image, retain_graph=True)[0]


@pytest.mark.parametrize("weight", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("loudness", [1e-3, 1.0, 1e6])
def test_the_adversarial_gradient_has_its_weight_times_the_norm_of_the_others(weight, loudness):
    _, image, target = picture()
    weights = {"pixel": 1.0, "perceptual": 0.3, "adversarial": weight}
    losses = three_losses(image, target, loudness)
    others = gradient_of(losses["pixel"], image) + 0.3 * gradient_of(losses["perceptual"], image)
    direction = gradient_of(losses["adversarial"], image)
    gradient, facts = balanced_gradient(losses, weights, image)
    added = gradient - others
    torch.testing.assert_close(added.norm(), weight * others.norm(), rtol=1e-4, atol=0)
    torch.testing.assert_close(added / added.norm(), direction / direction.norm(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(facts["adversarial_scale"], added.norm() / direction.norm(), rtol=1e-4, atol=0)


def test_shares_are_the_parts_of_each_loss_and_add_up_to_one():
    _, image, target = picture()
    _, facts = balanced_gradient(three_losses(image, target), {"pixel": 1.0, "perceptual": 0.3, "adversarial": 0.5}, image)
    shares = [facts[f"{name}_share"] for name in ("pixel", "perceptual", "adversarial")]
    assert sum(shares).item() == pytest.approx(1) and all(0 < share < 1 for share in shares)
    assert not any(fact.requires_grad for fact in facts.values())


def test_without_an_adversarial_loss_it_is_the_plain_weighted_backward():
    decoder, image, target = picture()
    losses = three_losses(image, target)
    del losses["adversarial"]
    (2 * losses["pixel"] + 0.3 * losses["perceptual"]).backward(retain_graph=True)
    expected = [p.grad.clone() for p in decoder.parameters()]
    decoder.zero_grad()
    gradient, facts = balanced_gradient(losses, {"pixel": 2.0, "perceptual": 0.3, "adversarial": 0.5}, image)
    torch.autograd.backward([image], [gradient])
    for parameter, grad in zip(decoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad)
    assert set(facts) == {"pixel_share", "perceptual_share"}


def test_one_backward_carries_the_penalties_too():
    decoder, image, target = picture()
    penalty = decoder.weight.square().mean()
    losses = {"pixel": (image - target).abs().mean()}
    (losses["pixel"] + penalty).backward(retain_graph=True)
    expected = decoder.weight.grad.clone()
    decoder.zero_grad()
    gradient, _ = balanced_gradient(losses, {"pixel": 1.0}, image)
    torch.autograd.backward([image, penalty], [gradient, None])
    torch.testing.assert_close(decoder.weight.grad, expected)


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("factor", [0.0, math.nan, math.inf])
def test_an_adversarial_gradient_that_is_zero_or_not_finite_counts_nothing(factor, weight):
    _, image, target = picture()
    losses = three_losses(image, target, factor)
    alone, _ = balanced_gradient({"pixel": (image - target).abs().mean()}, {"pixel": 1.0}, image)
    gradient, facts = balanced_gradient(losses, {"pixel": 1.0, "perceptual": 0.0, "adversarial": weight}, image)
    torch.testing.assert_close(gradient, alone)
    assert facts.get("adversarial_share", 0) == 0 and facts["pixel_share"] == 1


def test_a_hardly_answering_discriminator_is_not_amplified_without_bound():
    _, image, target = picture()
    _, facts = balanced_gradient(three_losses(image, target, 1e-12), {"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.5}, image)
    assert facts["adversarial_scale"].item() == pytest.approx(0.5e4)


def test_a_nan_of_the_reconstruction_is_not_hidden():
    _, image, target = picture()
    losses = three_losses(image, target) | {"pixel": (image * math.nan).mean()}
    gradient, _ = balanced_gradient(losses, {"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.5}, image)
    assert gradient.isnan().all()


def test_with_no_other_loss_the_adversarial_one_keeps_its_weight():
    _, image, target = picture()
    losses = three_losses(image, target)
    expected = 0.5 * gradient_of(losses["adversarial"], image)
    gradient, facts = balanced_gradient(losses, {"pixel": 0.0, "perceptual": 0.0, "adversarial": 0.5}, image)
    torch.testing.assert_close(gradient, expected)
    assert facts["adversarial_share"] == 1


def test_equal_pictures_leave_a_finite_gradient():
    target = torch.zeros(2, 3, 8, 8)
    image = target.clone().requires_grad_() * 1
    gradient, facts = balanced_gradient(three_losses(image, target), {"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.5}, image)
    assert gradient.isfinite().all() and all(fact.isfinite() for fact in facts.values())


def test_a_loss_scale_saves_what_float16_towers_would_lose():
    def gradient(scale):
        image = torch.ones(1, 3, 8, 8, requires_grad=True)
        losses = {"pixel": image.mean(), "adversarial": (image.half() * 1e-4).float().sum() * 1e-4}  # 1e-8 is 0 in float16
        return balanced_gradient(losses, {"pixel": 1e-3, "adversarial": 0.5}, image, scale=scale)[0]

    alone = torch.full((1, 3, 8, 8), 1e-3 / 192)
    torch.testing.assert_close(gradient(1.0), alone)
    torch.testing.assert_close(gradient(torch.tensor(2.0**16)), 1.5 * alone)


def test_no_gradient_of_the_generator_reaches_the_discriminator():
    decoder, image, target = picture()
    discriminator = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 1, 3)).requires_grad_(False)
    losses = {"pixel": (image - target).abs().mean(), "adversarial": generator_loss("hinge", [discriminator(image)])}
    gradient, facts = balanced_gradient(losses, {"pixel": 1.0, "adversarial": 0.5}, image)
    torch.autograd.backward([image], [gradient])
    assert facts["adversarial_share"] > 0 and decoder.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())


def _on_a_rank(rank: int, rows: torch.Tensor, file: str, out) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    image = rows[2 * rank : 2 * rank + 2].clone().requires_grad_()
    gradient, facts = balanced_gradient(_rowwise(image), {"pixel": 1.0, "adversarial": 0.5}, image)
    out[rank] = (gradient / 2, facts["adversarial_scale"].item())  # the mean over ranks halves what each one says
    dist.destroy_process_group()


def _rowwise(image: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"pixel": (image - 0.2).square().mean(), "adversarial": image.sin().mean()}


@pytest.mark.skipif(os.name != "posix", reason="starts processes with a file as their meeting place")
def test_two_ranks_balance_as_one_large_batch_does(tmp_path):
    rows = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 1, 10, 10]).view(4, 1, 1, 1)
    image = rows.clone().requires_grad_()
    expected, facts = balanced_gradient(_rowwise(image), {"pixel": 1.0, "adversarial": 0.5}, image)
    with multiprocessing.Manager() as manager:
        out = manager.dict()
        multiprocessing.spawn(_on_a_rank, args=(rows, str(tmp_path / "meeting"), out), nprocs=2)
        parts = [out[rank] for rank in range(2)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), expected)
    assert [part[1] for part in parts] == pytest.approx([facts["adversarial_scale"].item()] * 2)


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
