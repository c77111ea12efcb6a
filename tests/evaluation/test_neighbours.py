"""Precision is of samples and recall of real pictures, whichever way round others had them."""

import pytest
import torch

from ldmctl.errors import DataError
from ldmctl.evaluation.neighbours import neighbourhood


def normal(count, *, size=8, seed=0, deviation=1.0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) * deviation


def values(samples, reals, k=5):
    return {name: value[0] for name, value in neighbourhood(samples, reals, k=k)._asdict().items()}


def test_a_generator_of_one_good_picture_has_precision_and_no_recall():
    reals = normal(500)
    one = reals[:1] + 1e-3 * normal(300, seed=1)
    found = values(one, reals)
    assert found["precision"] == 1 and found["recall"] < 0.02 and found["coverage"] < 0.1


def test_a_generator_of_everything_has_recall_and_little_precision():
    found = values(normal(500, seed=1, deviation=4), normal(500))
    assert found["precision"] < 0.2 and found["recall"] > 0.8 and found["density"] < 0.2


def test_two_draws_of_the_same_have_precision_and_recall_alike_and_density_and_coverage_near_1():
    found = values(normal(1000, seed=1), normal(1000, seed=2))
    assert found["precision"] == pytest.approx(found["recall"], abs=0.05)
    assert found["density"] == pytest.approx(1, abs=0.1) and found["coverage"] > 0.9


def test_places_on_a_line_that_can_be_counted():
    reals, samples = torch.tensor([[0.0], [1], [2], [10]]), torch.tensor([[0.5], [2.9], [30]])
    found = values(samples, reals, k=1)  # real balls reach 1, 1, 1, 8; samples' 2.4, 2.4, 27.1
    assert found["precision"] == pytest.approx(2 / 3)  # not 30
    assert found["density"] == pytest.approx((2 + 2) / 3)  # 0.5 lies in the balls of 0 and 1, 2.9 in those of 2 and 10
    assert found["recall"] == 1 and found["coverage"] == pytest.approx(4 / 4)


def test_it_equals_torch_fidelity_on_the_same_features():
    theirs = pytest.importorskip("torch_fidelity.metric_prc", exc_type=ImportError)
    samples, reals = normal(400, seed=1, deviation=1.2), normal(300, seed=2)
    expected = theirs.prc_features_to_metric(samples, reals, prc_neighborhood=3, verbose=False)
    found = values(samples, reals, k=3)
    assert (found["precision"], found["recall"]) == pytest.approx((expected["precision"], expected["recall"]), abs=1e-6)


def test_order_changes_no_value():
    samples, reals = normal(150, seed=1), normal(200, seed=2)
    again = values(samples[torch.randperm(150)], reals[torch.randperm(200)])
    assert again == pytest.approx(values(samples, reals), abs=1e-6)


def test_intervals_hold_what_other_draws_have():
    reals = normal(200)
    found = [neighbourhood(normal(150, seed=seed, deviation=1.1), reals) for seed in range(1, 21)]
    for name in ("precision", "recall", "density", "coverage"):
        draws = [getattr(each, name) for each in found]
        expected = sum(value for value, _, _ in draws) / len(draws)
        assert sum(low <= expected <= high for _, low, high in draws) >= 16, name


def test_too_few_pictures_are_a_sentence():
    with pytest.raises(DataError, match="more than 5 pictures on each side; there are 5 and 9"):
        neighbourhood(normal(5), normal(9))
