"""The Frechet distance has the values that Gaussians give by hand, and those of other libraries."""

import pytest
import torch

from ldmctl.errors import DataError
from ldmctl.evaluation.frechet import FeatureStatistics, frechet_distance, statistics_of


def features(count=400, size=24, seed=0):
    """Correlated ones, as features are."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) @ mix + seed


def gaussian(mean, deviations, *, count=100):
    """Statistics of a Gaussian that is known exactly, uncorrelated."""
    return FeatureStatistics(count, torch.tensor(mean).double(), torch.tensor(deviations).double().square().diag() * (count - 1))


@pytest.mark.parametrize("count", [2, 10, 24, 25, 400])  # fewer than there are features too: a singular covariance
def test_the_distance_of_a_set_to_itself_is_zero(count):
    own = features(count)
    assert frechet_distance(statistics_of(own), statistics_of(own)) < 1e-6
    assert frechet_distance(statistics_of(own), statistics_of(own.flip(0))) < 1e-6


def test_gaussians_whose_distance_is_known():
    one, other = gaussian([0.0, 0, 0], [1.0, 2, 3]), gaussian([1.0, -2, 0], [2.0, 2, 5])
    assert frechet_distance(one, other) == pytest.approx((1 + 4) + (1 + 0 + 4))  # |m1 - m2|^2 + sum of (s1 - s2)^2
    assert frechet_distance(other, one) == pytest.approx(10)


def test_gaussians_that_do_not_commute_have_the_distance_of_their_2x2_closed_form():
    a = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.5], [-0.5, 3.0]], dtype=torch.float64)
    product = a @ b
    root = (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()  # of a 2x2 matrix M, (tr M^1/2)^2 = tr M + 2 det M^1/2
    one, other = (FeatureStatistics(11, torch.zeros(2).double(), each * 10) for each in (a, b))
    assert frechet_distance(one, other) == pytest.approx((a.trace() + b.trace() - 2 * root).item(), abs=1e-12)


def test_a_constant_set_is_as_far_as_its_mean_and_the_spread_of_the_other():
    assert frechet_distance(gaussian([3.0, 0], [0.0, 0]), gaussian([0.0, 0], [1.0, 2])) == pytest.approx(9 + 5)


def test_batches_order_and_ranks_change_nothing():
    own, other = features(401, seed=1) + 1e3, statistics_of(features(300, seed=2))
    whole, parts, ranks = statistics_of(own), FeatureStatistics(), [FeatureStatistics(), FeatureStatistics()]
    for number, batch in enumerate(own[torch.randperm(401, generator=torch.Generator().manual_seed(0))].split(37)):
        parts.add(batch)
        ranks[number % 2].add(batch)
    merged = FeatureStatistics().merge(ranks[0]).merge(FeatureStatistics()).merge(ranks[1])
    expected = frechet_distance(whole, other)
    for each in (parts, merged):
        assert each.count == 401 and frechet_distance(each, other) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(whole.covariance, torch.cov(own.T))


def test_it_equals_torchmetrics_on_the_same_features():
    theirs = pytest.importorskip("torchmetrics.image.fid", exc_type=ImportError)
    one, other = statistics_of(features(500, seed=1)), statistics_of(features(300, seed=2))
    expected = theirs._compute_fid(one.mean, one.covariance, other.mean, other.covariance).item()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


def test_it_equals_torch_fidelity_on_the_same_features():
    theirs = pytest.importorskip("torch_fidelity.metric_fid", exc_type=ImportError)
    one, other = features(500, seed=1), features(300, seed=2)
    said = theirs.fid_statistics_to_metric(theirs.fid_features_to_statistics(one), theirs.fid_features_to_statistics(other), verbose=False)
    expected = said["frechet_inception_distance"]
    assert frechet_distance(statistics_of(one), statistics_of(other)) == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_compared_is_a_sentence():
    with pytest.raises(DataError, match="Features of 3 numbers cannot be compared with features of 2"):
        frechet_distance(gaussian([0.0] * 3, [1.0] * 3), gaussian([0.0] * 2, [1.0] * 2))
    with pytest.raises(DataError, match="1 of 2 pictures have features that are not finite"):
        statistics_of(torch.tensor([[0.0, 1], [float("nan"), 0]]))
    with pytest.raises(DataError, match="as the 400 before them"):
        statistics_of(features()).add(torch.zeros(2, 3))
    with pytest.raises(DataError, match="at least two pictures; there is one"):
        frechet_distance(statistics_of(torch.zeros(1, 3)), statistics_of(torch.zeros(2, 3)))
