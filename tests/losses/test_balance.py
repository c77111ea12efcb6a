"""The adversarial gradient is as loud beside the others as it was said to be, whatever the micro-batch and the ranks."""

import math
import os

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from ldmctl.losses.adversary import generator_loss
from ldmctl.losses.balance import OPENING, Balance


def picture() -> tuple[nn.Conv2d, torch.Tensor, torch.Tensor]:
    """A decoder, what it makes, and what it should have made."""
    torch.manual_seed(0)
    decoder = nn.Conv2d(2, 3, 3, padding=1)
    return decoder, decoder(torch.randn(4, 2, 8, 8)), torch.randn(4, 3, 8, 8)


def three_losses(image, target, loudness=1.0):
    generator_loss = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return {
        "pixel": (image - target).abs().mean(),
        "perceptual": (image - target).pow(4).mean(),
        "adversarial": loudness * (generator_loss * image).mean(),
    }


def gradient_of(loss, image):
    return torch.autograd.grad(loss, image, retain_graph=True)[0]


def settled(weights, loudness=1.0, place="image", **keys):
    """(gradient, facts, balance) of a second step, which hears what the first one measured."""
    balance = Balance(place, **keys)
    for _ in range(2):
        decoder, image, target = picture()
        found = balance.gradient(three_losses(image, target, loudness), weights, image, last_layer=decoder.weight)
        balance.after_step()
    return *found, balance


@pytest.mark.parametrize("weight", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("loudness", [1e-3, 1.0, 1e6])
def test_the_adversarial_gradient_has_its_weight_times_the_norm_of_the_others(weight, loudness):
    _, image, target = picture()
    losses = three_losses(image, target, loudness)
    others = gradient_of(losses["pixel"], image) + 0.3 * gradient_of(losses["perceptual"], image)
    direction = gradient_of(losses["adversarial"], image)
    gradient, facts, _ = settled({"pixel": 1.0, "perceptual": 0.3, "adversarial": weight}, loudness)
    added = gradient - others
    torch.testing.assert_close(added.norm(), weight * others.norm(), rtol=1e-4, atol=0)
    torch.testing.assert_close(added / added.norm(), direction / direction.norm(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(facts["adversarial_scale"], added.norm() / direction.norm(), rtol=1e-4, atol=0)


def test_at_the_last_layer_its_norm_there_is_what_is_balanced():
    decoder, image, target = picture()
    weights = {"pixel": 1.0, "perceptual": 0.3, "adversarial": 0.5}
    gradient, _, _ = settled(weights, place="last-layer")
    losses = three_losses(image, target)
    others = gradient_of(losses["pixel"], image) + 0.3 * gradient_of(losses["perceptual"], image)
    sizes = [torch.autograd.grad(image, decoder.weight, each, retain_graph=True)[0].norm() for each in (gradient - others, others)]
    torch.testing.assert_close(sizes[0], 0.5 * sizes[1], rtol=1e-4, atol=0)


def test_unbalanced_it_keeps_its_plain_weight_from_the_first_step():
    _, image, target = picture()
    losses = three_losses(image, target)
    expected = gradient_of(losses["pixel"], image) + 0.5 * gradient_of(losses["adversarial"], image)
    gradient, _ = Balance("none").gradient(losses, {"pixel": 1.0, "perceptual": 0.0, "adversarial": 0.5}, image)
    torch.testing.assert_close(gradient, expected)


def test_before_the_first_measurement_it_counts_nothing():
    _, image, target = picture()
    losses = three_losses(image, target)
    expected = gradient_of(losses["pixel"], image)
    gradient, facts = Balance().gradient(losses, {"pixel": 1.0, "perceptual": 0.0, "adversarial": 0.5}, image)
    torch.testing.assert_close(gradient, expected)
    assert facts["adversarial_share"] == 0


def test_the_ratio_is_averaged_in_logarithms_and_measured_every_so_many_steps():
    balance, weights = Balance(every=2, smoothing=0.75), {"pixel": 1.0, "perceptual": 0.0, "adversarial": 1.0}
    ratios = []
    for step, loudness in enumerate([1.0, 1e9, 16.0, 1e9]):
        _, image, target = picture()
        balance.gradient(three_losses(image, target, loudness), weights, image, step=step)
        balance.after_step()
        ratios.append(balance.ratio.item())
    assert ratios[1] == ratios[0] and ratios[3] == ratios[2]  # odd steps do not measure
    assert ratios[2] == pytest.approx(ratios[0] * 16**-0.25, rel=1e-4)


def test_the_average_is_in_the_state():
    _, _, balance = settled({"pixel": 1.0, "perceptual": 1.0, "adversarial": 1.0})
    other = Balance()
    other.load_state_dict(balance.state_dict())
    assert other.ratio == balance.ratio > 0


@pytest.mark.parametrize("place", ["image", "last-layer"])
def test_micro_batches_are_balanced_as_one_large_batch_is(place):
    def ratio(parts):
        torch.manual_seed(0)
        decoder, given, target = nn.Conv2d(2, 3, 3, padding=1), torch.randn(8, 2, 6, 6), torch.randn(8, 3, 6, 6)
        balance = Balance(place)
        for rows in torch.arange(8).chunk(parts):
            image = decoder(given[rows])
            losses = {"pixel": (image - target[rows]).square().mean(), "adversarial": image.sin().mean()}
            balance.gradient(losses, {"pixel": 1.0, "adversarial": 0.5}, image, share=1 / parts, last_layer=decoder.weight)
        balance.after_step()
        return balance.ratio

    torch.testing.assert_close(ratio(4), ratio(1))


def test_shares_are_the_parts_of_each_loss_and_add_up_to_one():
    _, facts, _ = settled({"pixel": 1.0, "perceptual": 0.3, "adversarial": 0.5})
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
    gradient, facts = Balance().gradient(losses, {"pixel": 2.0, "perceptual": 0.3, "adversarial": 0.5}, image)
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
    gradient, _ = Balance().gradient(losses, {"pixel": 1.0}, image)
    torch.autograd.backward([image, penalty], [gradient, None])
    torch.testing.assert_close(decoder.weight.grad, expected)


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("factor", [0.0, math.nan, math.inf])
def test_an_adversarial_gradient_that_is_zero_or_not_finite_counts_nothing_and_is_not_remembered(factor, weight):
    weights = {"pixel": 1.0, "perceptual": 0.0, "adversarial": weight}
    _, _, balance = settled(weights)
    before = balance.ratio.clone()
    _, image, target = picture()
    alone, _ = Balance().gradient({"pixel": (image - target).abs().mean()}, {"pixel": 1.0}, image)
    _, image, target = picture()
    gradient, facts = balance.gradient(three_losses(image, target, factor), weights, image)
    balance.after_step()
    torch.testing.assert_close(gradient, alone)
    assert facts.get("adversarial_share", 0) == 0 and facts["pixel_share"] == 1
    assert balance.ratio == before


def test_a_hardly_answering_discriminator_is_not_amplified_without_bound():
    _, facts, _ = settled({"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.5}, 1e-12, largest=100.0)
    assert facts["adversarial_scale"].item() == pytest.approx(50)


def ratios(loudnesses, balance):
    """The ratio after each step, in which the adversarial loss is so loud."""
    found = []
    for loudness in loudnesses:
        _, image, target = picture()
        balance.gradient(three_losses(image, target, loudness), {"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.5}, image)
        balance.after_step()
        found.append(balance.ratio.item())
    return found


def test_the_ratio_grows_no_further_than_so_many_times_its_value_when_the_phase_began():
    opening, fading = [1.0, 0.25] * (OPENING // 2), [0.1, 0.01, 1e-6, 1e-6]
    free = ratios([*opening, *fading], Balance(smoothing=0.0))
    held = ratios([*opening, *fading], Balance(smoothing=0.0, growth=3.0))
    began = math.sqrt(free[0] * free[1])  # the geometric mean of the first ones
    assert held[:OPENING] == pytest.approx(free[:OPENING])
    assert held[OPENING:] == pytest.approx([3 * began] * 4, rel=1e-4) and free[OPENING] > 4 * began
    assert ratios([2.0], Balance(smoothing=0.0, growth=3.0)) == pytest.approx([free[0] / 2], rel=1e-4), "what grows less is left alone"


def test_the_value_when_the_phase_began_is_in_the_state():
    first, other = Balance(smoothing=0.0, growth=3.0), Balance(smoothing=0.0, growth=3.0)
    began = ratios([1.0] * OPENING, first)[0]
    other.load_state_dict(first.state_dict())
    assert ratios([1e-6] * (OPENING + 2), other) == pytest.approx([3 * began] * (OPENING + 2), rel=1e-4)


def test_a_nan_of_the_reconstruction_is_not_hidden():
    _, image, target = picture()
    losses = three_losses(image, target) | {"pixel": (image * math.nan).mean()}
    gradient, _ = Balance().gradient(losses, {"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.5}, image)
    assert gradient.isnan().all()


def test_with_no_other_loss_the_adversarial_one_keeps_its_weight():
    _, image, target = picture()
    losses = three_losses(image, target)
    expected = 0.5 * gradient_of(losses["adversarial"], image)
    gradient, facts = Balance().gradient(losses, {"pixel": 0.0, "perceptual": 0.0, "adversarial": 0.5}, image)
    torch.testing.assert_close(gradient, expected)
    assert facts["adversarial_share"] == 1


def test_equal_pictures_leave_a_finite_gradient():
    target, balance = torch.zeros(2, 3, 8, 8), Balance()
    for _ in range(2):
        image = target.clone().requires_grad_() * 1
        gradient, facts = balance.gradient(three_losses(image, target), {"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.5}, image)
        balance.after_step()
        assert gradient.isfinite().all() and all(fact.isfinite() for fact in facts.values())


def test_a_loss_scale_saves_what_float16_towers_would_lose():
    def gradient(scale):
        balance = Balance()
        for _ in range(2):
            image = torch.ones(1, 3, 8, 8, requires_grad=True)
            losses = {"pixel": image.mean(), "adversarial": (image.half() * 1e-4).float().sum() * 1e-4}  # 1e-8 is 0 in float16
            found = balance.gradient(losses, {"pixel": 1e-3, "adversarial": 0.5}, image, scale=scale)[0]
            balance.after_step()
        return found

    alone = torch.full((1, 3, 8, 8), 1e-3 / 192)
    torch.testing.assert_close(gradient(1.0), alone)
    torch.testing.assert_close(gradient(torch.tensor(2.0**16)), 1.5 * alone)


def test_no_gradient_of_the_generator_reaches_the_discriminator():
    balance = Balance("none")
    decoder, image, target = picture()
    discriminator = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 1, 3)).requires_grad_(False)
    losses = {"pixel": (image - target).abs().mean(), "adversarial": generator_loss("hinge", [discriminator(image)])}
    gradient, facts = balance.gradient(losses, {"pixel": 1.0, "adversarial": 0.5}, image)
    torch.autograd.backward([image], [gradient])
    assert facts["adversarial_share"] > 0 and decoder.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())


def _on_a_rank(rank: int, rows: torch.Tensor, file: str, out) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    image = rows[2 * rank : 2 * rank + 2].clone().requires_grad_()
    balance = Balance()
    balance.gradient(_rowwise(image), {"pixel": 1.0, "adversarial": 0.5}, image)
    balance.after_step()
    out[rank] = balance.ratio.item()
    dist.destroy_process_group()


def _rowwise(image: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"pixel": (image - 0.2).square().mean(), "adversarial": image.sin().mean()}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="starts processes with a file as their meeting place")
def test_two_ranks_balance_as_one_large_batch_does(tmp_path):
    rows = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 1, 10, 10]).view(4, 1, 1, 1)
    image, balance = rows.clone().requires_grad_(), Balance()
    balance.gradient(_rowwise(image), {"pixel": 1.0, "adversarial": 0.5}, image)
    balance.after_step()
    with multiprocessing.Manager() as manager:
        out = manager.dict()
        multiprocessing.spawn(_on_a_rank, args=(rows, str(tmp_path / "meeting"), out), nprocs=2)
        parts = [out[rank] for rank in range(2)]
    assert parts == pytest.approx([balance.ratio.item()] * 2)
