"""Changes before the discriminator: random per picture, derivable, and no larger than said."""

import pytest
import torch

from ldmctl.losses.diffaugment import augment

KINDS = ["colour", "translation", "cutout"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 4, channels: int = 3, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=generator(9)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kinds", [[], *([kind] for kind in KINDS), KINDS])
def test_shape_and_kind_of_number_stay(channels, kinds):
    image = pictures(channels=channels)
    changed = augment(image, kinds, generator())
    assert changed.shape == image.shape and changed.dtype == image.dtype and changed.isfinite().all()
    assert torch.equal(changed, image) == (not kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_pictures_and_another_seed_others(kind):
    image = pictures()
    one, other = augment(image, [kind], generator()), augment(image, [kind], generator())
    assert torch.equal(one, other)
    assert not torch.equal(augment(image, [kind], generator(1)), one)


def test_a_given_generator_leaves_the_global_numbers_alone():
    before = torch.get_rng_state()
    augment(pictures(), KINDS, generator())
    assert torch.equal(torch.get_rng_state(), before)
    augment(pictures(), KINDS)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_pictures_of_a_batch_are_changed_differently(kind):
    changed = augment(pictures(1).expand(16, -1, -1, -1), [kind], generator())
    assert len({tuple(each.flatten().tolist()) for each in changed}) > 8


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_gradient_is_that_of_a_numerical_difference(channels):
    image = pictures(2, channels, 8, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda image: augment(image, KINDS, generator()), image)


def test_a_gradient_penalty_goes_through_every_change():
    image = pictures(8).requires_grad_()
    gradient = torch.autograd.grad(augment(image, KINDS, generator()).pow(3).sum(), image, create_graph=True)[0]
    gradient.square().sum().backward()
    assert image.grad.isfinite().all() and image.grad.any()


# -- colour ------------------------------------------------------------------------


def test_colour_is_brightness_then_saturation_then_contrast_within_their_ranges():
    image = pictures(500)
    changed = augment(image, ["colour"], generator())
    brightness = (changed.mean((1, 2, 3)) - image.mean((1, 2, 3))).double()
    assert -0.5 <= brightness.min() < -0.45 and 0.45 < brightness.max() <= 0.5  # the other two keep the mean
    grey, grey_changed = image.mean(1), changed.mean(1)
    contrast = grey_changed.flatten(1).std(1) / grey.flatten(1).std(1)
    assert 0.5 - 1e-4 <= contrast.min() < 0.55 and 1.45 < contrast.max() <= 1.5 + 1e-4
    apart, apart_changed = (each - each.mean(1, keepdim=True) for each in (image, changed))
    saturation = apart_changed.flatten(1).norm(dim=1) / apart.flatten(1).norm(dim=1) / contrast
    assert 0 <= saturation.min() < 0.1 and 1.9 < saturation.max() <= 2 + 1e-4


def test_on_average_colour_changes_nothing():
    image = pictures(1).expand(20_000, -1, -1, -1)[:, :, :2, :2]
    torch.testing.assert_close(augment(image, ["colour"], generator()).mean(0), image[0], atol=0.02, rtol=0)


def test_alpha_keeps_its_values_and_does_not_tint_the_colours():
    image = pictures(channels=4)
    changed = augment(image, ["colour"], generator())
    assert torch.equal(changed[:, 3], image[:, 3])
    assert torch.equal(changed[:, :3], augment(image[:, :3], ["colour"], generator()))


def test_grey_is_changed_by_one_line_for_all_pixels():
    image = pictures(channels=1)
    for before, after in zip(image, augment(image, ["colour"], generator()), strict=True):
        slope = (after.max() - after.min()) / (before.max() - before.min())
        torch.testing.assert_close(after - after.mean(), slope * (before - before.mean()))


# -- places ------------------------------------------------------------------------


def test_a_picture_moves_by_at_most_an_eighth_of_its_sides_and_as_one():
    height, width = 16, 24
    place = torch.arange(1.0, height * width + 1).view(1, 1, height, width).expand(300, 2, -1, -1)
    moved = augment(place, ["translation"], generator())
    assert torch.equal(moved[:, 0], moved[:, 1]), "channels move together"
    seen = set()
    for each in moved[:, 0]:
        rows, columns = each.nonzero(as_tuple=True)
        value = each[rows, columns].long() - 1
        down, right = rows - value // width, columns - value % width
        assert len(down.unique()) == len(right.unique()) == 1
        seen.add((int(down[0]), int(right[0])))
        assert len(rows) == (height - abs(int(down[0]))) * (width - abs(int(right[0]))), "only what left the picture is missing"
    assert {down for down, _ in seen} == set(range(-2, 3)) and {right for _, right in seen} == set(range(-3, 4))


def test_a_cutout_removes_one_rectangle_of_half_the_sides_that_may_reach_over_the_border():
    whole, sizes = torch.ones(400, 3, 16, 24), set()
    cut = augment(whole, ["cutout"], generator())
    assert torch.equal(cut[:, 0], cut[:, 1]) and set(cut.unique().tolist()) == {0.0, 1.0}
    for each in cut[:, 0]:
        rows, columns = (each == 0).nonzero(as_tuple=True)
        height, width = (int(index.max() - index.min()) + 1 for index in (rows, columns))
        assert len(rows) == height * width, "a filled rectangle"
        sizes.add((height, width))
    assert max(height for height, _ in sizes) == 8 and max(width for _, width in sizes) == 12
    assert min(height for height, _ in sizes) >= 4 and min(width for _, width in sizes) >= 6, "its centre lies in the picture"


def test_what_is_cut_out_gets_no_gradient_and_all_else_the_whole():
    image = pictures().requires_grad_()
    cut = augment(image, ["cutout"], generator())
    cut.sum().backward()
    assert torch.equal(image.grad, (cut != 0).float())
