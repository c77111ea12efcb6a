"""Kernel distances are unbiased, and equal those of other libraries."""

import math

import pytest
import torch

from ldmctl.errors import DataError
from ldmctl.evaluation.frechet import frechet_interval, statistics_of
from ldmctl.evaluation.kernels import bandwidth, gaussian, kernel_distance, polynomial


def normal(count, *, size=8, seed=0, mean=0.0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def test_pairs_that_can_be_counted():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0], [1.0]])
    # k(x, x') = (0 + 1)^3; y: (1 + 1 + 27) / 3; across: 1, 1, 1 and 1, 27, 8
    assert kernel_distance(x, y, polynomial)[0] == pytest.approx(1 + 29 / 3 - 2 * 39 / 6)


def test_a_shift_has_the_distance_of_two_gaussians_under_a_gaussian_kernel():
    size, shift = 4, 1.0
    one, other = normal(4000, size=size, seed=1, mean=shift), normal(4000, size=size, seed=2)
    # E k(x, x') = (1 + 2 / s^2)^(-D/2); across times exp(-|m|^2 / (2 (s^2 + 2)))
    own = (1 + 2 / 4) ** (-size / 2)
    across = own * torch.tensor(-(size * shift**2) / (2 * (4 + 2))).exp().item()
    assert kernel_distance(one, other, gaussian(2.0))[0] == pytest.approx(2 * own - 2 * across, rel=0.03)


@pytest.mark.parametrize("kernel", [polynomial, gaussian(3.0)], ids=["polynomial", "gaussian"])
def test_the_same_distribution_has_no_distance_on_average_and_intervals_hold_it(kernel):
    reference = normal(600, seed=999)
    draws = [kernel_distance(normal(60, seed=seed), reference, kernel) for seed in range(40)]
    value = torch.tensor([draw[0] for draw in draws])
    assert abs(value.mean()) < 3 * value.std() / 40**0.5 and (value < 0).any()
    assert sum(low <= 0 <= high for _, low, high in draws) >= 34


def test_it_equals_torch_fidelity_on_the_same_features():
    theirs = pytest.importorskip("torch_fidelity.metric_kid", exc_type=ImportError)
    one, other = normal(200, seed=1, mean=0.1), normal(200, seed=2)
    about = {"kid_subsets": 1, "kid_subset_size": 200, "verbose": False}  # one subset of all
    said = theirs.kid_features_to_metric(one, other, **about)["kernel_inception_distance_mean"]
    assert kernel_distance(one, other, polynomial)[0] == pytest.approx(said, abs=1e-9)
    said = theirs.kid_features_to_metric(one, other, **about, kid_kernel="rbf", kid_kernel_rbf_sigma=3.0)["kernel_inception_distance_mean"]
    assert kernel_distance(one, other, gaussian(3.0))[0] == pytest.approx(said, abs=1e-9)


def test_it_equals_torchmetrics_on_the_same_features():
    theirs = pytest.importorskip("torchmetrics.image.kid", exc_type=ImportError)
    one, other = normal(150, seed=1, mean=0.1), normal(150, seed=2)
    assert kernel_distance(one, other, polynomial)[0] == pytest.approx(theirs.poly_mmd(other, one).item(), abs=1e-9)


def test_the_bandwidth_is_the_median_distance_of_references():
    assert bandwidth(torch.tensor([[0.0], [1.0], [3.0]])) == 2
    assert bandwidth(torch.ones(3, 2)) == 1, "references that are all alike have no scale"


def test_intervals_of_the_frechet_distance_hold_what_other_draws_have():
    reference = statistics_of(normal(5000, seed=999))
    for mean in (0.0, 0.3):
        draws = [frechet_interval(normal(300, seed=seed, mean=mean), reference) for seed in range(40)]
        expected = sum(value for value, _, _ in draws) / len(draws)
        assert sum(low <= expected <= high for _, low, high in draws) >= 34


def test_one_picture_is_a_sentence_and_three_have_no_interval():
    with pytest.raises(DataError, match="two pictures on each side; there are 1 and 9"):
        kernel_distance(normal(1), normal(9), polynomial)
    value, low, _ = kernel_distance(normal(3), normal(9), polynomial)
    assert math.isfinite(value) and math.isnan(low)


def test_the_bandwidth_is_of_references_from_the_first_to_the_last():
    classes = torch.cat([torch.zeros(1000, 1), torch.full((999, 1), 5.0)])
    assert bandwidth(classes) == 5, "half of all pairs are of two classes, which the first thousand would not show"
