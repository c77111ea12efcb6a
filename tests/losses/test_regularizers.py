"""R1 and LeCam have the values of their papers, whatever the micro-batches and ranks."""

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from ldmctl.blocks import Patches
from ldmctl.losses.regularizers import LeCam, r1_penalty


def constant(*values: float, count: int = 2) -> list[torch.Tensor]:
    """Maps of logits of `count` pictures, each constant."""
    return [torch.full((count, 1, 3, 3), value) for value in values]


# -- R1 ----------------------------------------------------------------------------


def test_r1_of_a_linear_discriminator_is_half_the_squared_norm_of_its_weight():
    weight, image = torch.randn(3, 5, 5), torch.randn(7, 3, 5, 5, requires_grad=True)
    logits = (image * weight).sum((1, 2, 3)).view(7, 1, 1, 1)
    torch.testing.assert_close(r1_penalty([logits], image), weight.square().sum() / 2)


def test_r1_of_several_maps_of_patches_is_that_of_their_mean_with_equal_maps():
    one, other, image = torch.randn(3, 4, 4), torch.randn(3, 4, 4), torch.randn(2, 3, 4, 4, requires_grad=True)
    whole = (image * one).sum(1, keepdim=True)  # 16 patches of one pixel
    single = (image * other).sum((1, 2, 3)).view(2, 1, 1, 1)
    expected = ((one / 16 + other) / 2).square().sum() / 2
    torch.testing.assert_close(r1_penalty([whole, single], image), expected)


def test_r1_is_a_mean_over_pictures():
    image = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).requires_grad_()
    assert r1_penalty([image.square()], image).item() == pytest.approx(((2 * 1) ** 2 + (2 * 3) ** 2) / 2 / 2)


def test_r1_teaches_the_discriminator_a_smaller_gradient():
    torch.manual_seed(0)
    discriminator, image = Patches(3, [8, 8]), torch.randn(4, 3, 16, 16)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    found = []
    for _ in range(10):
        real = image.clone().requires_grad_()
        penalty = r1_penalty([discriminator(real)], real)
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        found.append(penalty.item())
    assert found[-1] < found[0] / 2


# -- LeCam -------------------------------------------------------------------------


def test_lecam_is_the_squared_distance_to_the_average_of_the_other_side():
    lecam = LeCam()
    lecam.note(constant(2.0), constant(-1.0))
    lecam.after_step()
    assert lecam.penalty(constant(1.5), constant(0.5)).item() == pytest.approx((1.5 - -1.0) ** 2 + (0.5 - 2.0) ** 2)


def test_lecam_looks_at_every_patch_and_counts_maps_equally():
    lecam = LeCam()
    lecam.note(constant(0.0), constant(0.0))
    lecam.after_step()
    real = [torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), torch.full((1, 1, 5, 5), 2.0)]
    assert lecam.penalty(real, constant(0.0, 0.0)).item() == pytest.approx(((1 + 9) / 2 + 4) / 2)


def test_lecam_says_nothing_before_its_first_average():
    logits = [each.requires_grad_() for each in constant(5.0)]
    penalty = LeCam().penalty(logits, constant(-5.0))
    penalty.backward()
    assert penalty.item() == 0 and not logits[0].grad.any()


def test_lecam_pulls_real_and_made_logits_together():
    lecam = LeCam()
    lecam.note(constant(1.0), constant(-1.0))
    lecam.after_step()
    real, fake = (constant(value)[0].requires_grad_() for value in (1.0, -1.0))
    lecam.penalty([real], [fake]).backward()
    assert (real.grad > 0).all() and (fake.grad < 0).all()
    assert not lecam.real.requires_grad


def test_averages_are_plain_at_first_and_exponential_later():
    lecam, expected = LeCam(decay=0.75), 0.0
    for step, value in enumerate([4.0, 2.0, 6.0, 1.0, 9.0, 3.0]):
        weight = max(1 / (step + 1), 0.25)
        expected = (1 - weight) * expected + weight * value
        lecam.note(constant(value), constant(-value))
        lecam.after_step()
        assert lecam.real.item() == pytest.approx(expected) and lecam.fake.item() == pytest.approx(-expected)
        if step == 2:
            assert expected == pytest.approx(4.0)


def test_a_penalty_or_a_note_moves_no_average():
    lecam = LeCam()
    lecam.note(constant(1.0), constant(2.0))
    lecam.penalty(constant(1.0), constant(2.0))
    assert not any(value.any() for value in lecam.state_dict().values())


def test_micro_batches_of_any_size_move_the_averages_as_the_batch_does():
    torch.manual_seed(0)
    real, fake = torch.randn(7, 1, 3, 3), torch.randn(7, 1, 3, 3)
    whole, parts = LeCam(), LeCam()
    whole.note([real], [fake])
    for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
        parts.note([real[rows]], [fake[rows]])
    whole.after_step()
    parts.after_step()
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())


def test_steps_without_logits_and_steps_that_were_not_finite_are_left_out():
    lecam = LeCam()
    lecam.note(constant(1.0), constant(2.0))
    lecam.after_step()
    before = {name: value.clone() for name, value in lecam.state_dict().items()}
    lecam.after_step()
    lecam.note(constant(float("nan")), constant(2.0))
    assert list(lecam.after_step()) == []
    torch.testing.assert_close(lecam.state_dict(), before, rtol=0, atol=0)


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    one, other = LeCam(), LeCam()
    one.note(constant(1.0), constant(2.0))
    one.after_step()
    other.load_state_dict(one.state_dict())
    for lecam in (one, other):
        lecam.note(constant(5.0), constant(-2.0))
        lecam.after_step()
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_lecam_trains_nothing():
    assert isinstance(LeCam(), nn.Module) and not list(LeCam().parameters())


def _on_a_rank(rank: int, real: torch.Tensor, fake: torch.Tensor, meeting: str, out) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    lecam = LeCam()
    lecam.note([real[2 * rank : 2 * rank + 2]], [fake[2 * rank : 2 * rank + 2]])
    lecam.after_step()
    out[rank] = lecam.state_dict()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_have_the_averages_of_one(tmp_path):
    torch.manual_seed(0)
    real, fake = torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3)
    alone = LeCam()
    alone.note([real], [fake])
    alone.after_step()
    with multiprocessing.Manager() as manager:
        out = manager.dict()
        multiprocessing.spawn(_on_a_rank, args=(real, fake, str(tmp_path / "meeting"), out), nprocs=2)
        for rank in range(2):
            torch.testing.assert_close(dict(out[rank]), dict(alone.state_dict()))
