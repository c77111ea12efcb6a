"""Finite scalar quantization: the paper's grid, its codes, and what the cache and the decoder see of it."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ldmctl import registry
from ldmctl.testing import check_autoencoder

FSQ = registry.load("autoencoder", "fsq")
SMALL = {"widths": [4, 8], "layers": 1, "norm_groups": 4, "attention": False}


def make(image_channels: int = 1, **keys: object) -> nn.Module:
    torch.manual_seed(0)
    return FSQ(FSQ.Config(type="fsq", **{**SMALL, **keys}), image_channels=image_channels)


def column(*values: float) -> torch.Tensor:
    """[1,c,1,1]."""
    return torch.tensor(values).view(1, -1, 1, 1)


def spread(fsq: nn.Module, count: int = 4096) -> torch.Tensor:
    """Features [count,c,1,1] over all of their range."""
    z = 6 * torch.rand(count, fsq.channels, 1, 1, generator=torch.Generator().manual_seed(2)) - 3
    return fsq.grid.bound(z)


def test_it_keeps_the_promises_of_all():
    check_autoencoder(FSQ, **SMALL)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_small_grey_and_colour_pictures_come_back(channels, size):
    fsq = make(channels, widths=[4, 8, 8], attention=True)
    image = torch.rand(2, channels, size, size) * 2 - 1
    features = fsq.encode(image)
    assert features.shape == (2, 4, size // 4, size // 4) and features.abs().max() <= 1
    assert fsq(image).image.shape == image.shape


# -- the grid ----------------------------------------------------------------------


def test_bounds_are_those_of_the_paper():
    """Worked by hand from the appendix: tanh(z + tan(o / h)) h - o with h = 0.999 (L - 1) / 2, o = 1/2 for even L; then by L // 2."""
    bound = make(levels=[8, 5, 2]).grid.bound
    shift8, shift2 = math.tan(0.5 / 3.4965), math.tan(0.5 / 0.4995)
    assert (shift8, shift2) == pytest.approx((0.143984, 1.560842), abs=1e-5)
    at_zero = [(math.tanh(shift8) * 3.4965 - 0.5) / 4, 0.0, math.tanh(shift2) * 0.4995 - 0.5]
    assert at_zero == pytest.approx([-0.0000030, 0.0, -0.0426], abs=1e-4)
    assert bound(column(0, 0, 0)).flatten().tolist() == pytest.approx(at_zero, abs=1e-6)
    at_one = [(math.tanh(1 + shift8) * 3.4965 - 0.5) / 4, math.tanh(1) * 1.998 / 2, math.tanh(1 + shift2) * 0.4995 - 0.5]
    assert bound(column(1, 1, 1)).flatten().tolist() == pytest.approx(at_one, abs=1e-6)
    assert bound(column(99, 99, 99)).flatten().tolist() == pytest.approx([2.9965 / 4, 0.999, -0.0005], abs=1e-6)
    assert bound(column(-99, -99, -99)).flatten().tolist() == pytest.approx([-3.9965 / 4, -0.999, -0.9995], abs=1e-6)


@pytest.mark.parametrize(
    ("levels", "points"),
    [
        (2, [-1, 0]),
        (3, [-1, 0, 1]),
        (4, [-1, -0.5, 0, 0.5]),
        (5, [-1, -0.5, 0, 0.5, 1]),
        (8, [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]),
    ],
)
def test_points_are_evenly_spaced_and_even_numbers_have_no_middle(levels, points):
    fsq = make(levels=[levels])
    rounded = fsq.grid(spread(fsq))
    assert rounded.unique().tolist() == points
    assert fsq.lookup(torch.arange(levels).view(-1, 1, 1)).flatten().tolist() == points


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [2, 3], [7, 6, 2]])
def test_every_code_is_reachable_and_none_is_beyond(levels):
    fsq = make(levels=levels)
    z = torch.cartesian_prod(*[torch.linspace(-2, 2, 17)] * len(levels))[:, :, None, None]
    codes = fsq.codes(fsq.grid.bound(z))
    assert fsq.code_count == math.prod(levels)
    assert codes.unique().tolist() == list(range(fsq.code_count))


def test_the_outermost_of_512_values_is_reachable():
    fsq = make(levels=[512, 511])
    ends = fsq.grid.bound(column(99, 99)), fsq.grid.bound(column(-99, -99))
    assert [fsq.codes(end).item() for end in ends] == [512 * 511 - 1, 0]


def test_the_first_channel_counts_fastest():
    fsq = make(levels=[8, 5, 5])
    digits = column(3 - 4, 1 - 2, 4 - 2) / column(4, 2, 2)
    assert fsq.codes(digits).item() == 3 + 8 * 1 + 40 * 4
    assert torch.equal(fsq.lookup(torch.tensor([[[3 + 8 * 1 + 40 * 4]]])), digits)


def test_features_beyond_the_grid_go_to_its_edge():
    fsq = make(levels=[8, 5])
    assert fsq.grid(column(1.7, 1.7)).flatten().tolist() == [0.75, 1.0]
    assert fsq.grid(column(-1.7, -1.7)).flatten().tolist() == [-1.0, -1.0]
    assert fsq.codes(column(1.7, -1.7)).item() == 7


def test_any_deviation_per_channel_leaves_the_nearest_point_the_nearest():
    """Why `rescale` is "channel": in whitened coordinates, the point at the smallest distance is the one that rounding finds."""
    fsq = make(levels=[8, 5])
    features, all_points = spread(fsq, 200), fsq.lookup(torch.arange(40).view(-1, 1, 1))
    deviation = column(0.1, 3.0)
    whitened, points = ((each / deviation).flatten(1).double() for each in (features, all_points))
    assert torch.equal(torch.cdist(whitened, points).argmin(1), fsq.codes(features).flatten())


# -- codes and pictures --------------------------------------------------------------


@torch.no_grad()
def test_codes_decode_to_the_same_picture_as_their_features():
    fsq = make().eval()
    features = fsq.encode(torch.rand(2, 1, 16, 16) * 2 - 1)
    codes = fsq.codes(features)
    assert codes.dtype == torch.int64 and codes.shape == (2, 8, 8)
    assert torch.equal(fsq.codes(fsq.lookup(codes)), codes)
    assert torch.equal(fsq.decode(fsq.lookup(codes)), fsq.decode(features))


def test_codes_of_any_integer_type_are_looked_up():
    fsq, codes = make(), torch.arange(1000).view(1, 25, 40)
    assert torch.equal(fsq.lookup(codes.to(torch.uint16)), fsq.lookup(codes))
    assert torch.equal(fsq.codes(fsq.lookup(codes)), codes)


def test_gradient_passes_straight_through_the_rounding():
    fsq = make()
    features = spread(fsq, 16).requires_grad_()
    rounded = fsq.grid(features)
    slope = torch.randn_like(rounded)
    assert torch.equal(rounded, fsq.lookup(fsq.codes(features)))
    assert torch.equal(torch.autograd.grad(rounded, features, slope)[0], slope)


def test_autocast_changes_neither_points_nor_codes():
    fsq = make(levels=[512])
    features = spread(fsq)
    with torch.autocast("cpu", torch.bfloat16):
        codes, rounded = fsq.codes(features), fsq.grid(features)
        assert fsq.encode(torch.zeros(1, 1, 8, 8)).dtype == torch.float32
    assert torch.equal(codes, fsq.codes(features)) and torch.equal(rounded, fsq.grid(features))


def test_facts_count_codes_and_measure_the_rounding():
    fsq, image = make(levels=[4, 3]), torch.rand(4, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        features, out = fsq.encode(image), fsq(image)
    codes = fsq.codes(features).flatten()
    assert out.penalties == {}
    assert out.facts["codes_counts"].dtype == torch.int64
    assert out.facts["codes_counts"].tolist() == [(codes == code).sum() for code in range(12)]
    shares = torch.bincount(codes, minlength=12) / len(codes)
    assert out.facts["perplexity"].item() == pytest.approx(torch.special.entr(shares).sum().exp().item(), rel=1e-5)
    error = (fsq.grid(features) - features).square().mean() / features.var((0, 2, 3), correction=0).mean()
    assert out.facts["quantization_error"].item() == pytest.approx(error.item(), rel=1e-5)
    assert out.facts["latent_max"] == features.abs().max()
    assert out.facts["latent_deviation"].item() == pytest.approx(features.std(correction=0).item(), rel=1e-5)


def test_numbers_that_are_not_finite_stay_in_the_picture_and_do_not_crash():
    fsq = make()
    out = fsq(torch.full((1, 1, 8, 8), torch.nan))
    assert out.image.isnan().any()
    assert out.facts["codes_counts"].sum() == 16


def test_bits_count_the_codes_of_a_picture():
    bits = make(levels=[8, 4]).bits(torch.zeros(3, 2, 6, 7))
    assert bits.tolist() == [6 * 7 * 5.0] * 3


def test_the_grid_is_no_weight():
    assert {name.split(".")[0] for name in make().state_dict()} == {"encoder", "decoder"}
    assert make().decoding == ("decoder",)


@pytest.mark.parametrize(
    ("levels", "complaint"),
    [([8, 1], "a channel of 1 values"), ([513], "a channel of 513"), ([512, 512, 512], "134,217,728 codes"), ([], "at least 1 item")],
)
def test_a_grid_that_cannot_be_is_refused(levels, complaint):
    with pytest.raises(ValidationError, match=complaint):
        FSQ.Config(type="fsq", levels=levels)
