"""A validation loss that rises is noticed, a noisy one that does not is never called rising."""

import math
import random

import pytest

from ldmctl.training.watch import LEAST, Curves, noise, risen


def alarms(curve, bound=0.1):
    """After which values of a curve it is called risen."""
    steps = list(range(len(curve)))
    return [count for count in range(1, len(curve) + 1) if risen("loss", steps[:count], curve[:count], bound)]


def noisy(seed, *, deviation, length=60, heavy=False):
    """A flat curve: normal noise around 1, one value in twenty four times as far out where it is heavy."""
    draw = random.Random(seed)
    return [1 + deviation * draw.gauss(0, 1) * (4 if heavy and draw.random() < 0.05 else 1) for _ in range(length)]


@pytest.mark.parametrize(("deviation", "heavy"), [(0.01, False), (0.05, False), (0.1, False), (0.05, True)])
def test_of_1000_noisy_flat_curves_fewer_than_ten_are_called_risen(deviation, heavy):
    called = sum(bool(alarms(noisy(seed, deviation=deviation, heavy=heavy))) for seed in range(1000))
    assert called < 10


def test_falling_curves_with_noise_are_not_called_risen():
    curves = [[value * (0.3 + math.exp(-place / 10)) for place, value in enumerate(noisy(seed, deviation=0.03))] for seed in range(300)]
    assert sum(bool(alarms(curve)) for curve in curves) < 3


@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.02])
def test_a_rise_by_a_third_is_noticed_after_three_values(deviation):
    for seed in range(50):
        curve = noisy(seed, deviation=deviation, length=30) + [value * 1.4 for value in noisy(seed + 99, deviation=deviation, length=5)]
        assert alarms(curve) and alarms(curve)[0] in (33, 34), seed


def test_a_rise_below_the_bound_is_none():
    assert not alarms([1.0] * 20 + [1.09] * 10)
    assert alarms([1.0] * 20 + [1.09] * 10, bound=0.05)


def test_one_value_far_out_decides_nothing():
    assert not alarms([1.0] * 20 + [9.0] + [1.0] * 9 + [9.0, 9.0] + [1.0] * 5)


def test_nothing_is_said_of_a_few_values():
    assert not alarms([1.0] * 3 + [9.0] * (LEAST - 4))


def test_the_sentence_has_the_numbers_and_the_step_of_the_best():
    curves = Curves({})
    for step, value in enumerate([*(0.42 - 0.02 * place for place in range(11)), 0.2, 0.2, 0.2, *[0.6] * 3], start=1):
        curves.add(100 * step, {"val/pixel": value, "val/lpips": 0.3})
    assert str(curves.risen(0.1)) == "pixel has risen from 0.2 around step 1,400 to 0.6"


def test_the_loss_that_has_risen_most_is_named():
    curves = Curves({})
    for step in range(20):
        curves.add(step, {"val/pixel": 1.0 if step < 16 else 1.5, "val/lpips": 1.0 if step < 16 else 3.0})
    assert curves.risen(0.1).name == "val/lpips"


def test_a_value_that_is_not_finite_is_passed_over_and_a_step_counts_once():
    kept = {}
    curves = Curves(kept)
    for step, value in [(1, 1.0), (1, 2.0), (2, math.nan), (3, 3.0)]:
        curves.add(step, {"val/loss": value})
    assert kept == {"steps": [1, 3], "values": {"val/loss": [1.0, 3.0]}}


def test_a_loss_that_is_no_longer_looked_at_is_forgotten():
    kept = {}
    Curves(kept).add(1, {"val/pixel": 1.0, "val/lpips": 2.0})
    Curves(kept).add(2, {})
    Curves(kept).add(3, {"val/lpips": 3.0})
    assert kept == {"steps": [1, 3], "values": {"val/lpips": [2.0, 3.0]}}
    Curves(kept).add(4, {"val/pixel": 4.0})
    assert kept == {"steps": [4], "values": {"val/pixel": [4.0]}}


def test_noise_is_measured_around_the_trend():
    assert noise([10.0 - place for place in range(20)]) == pytest.approx(0, abs=1e-9)
    draw = random.Random(0)
    assert noise([10 - place + draw.gauss(0, 1) for place in range(2000)]) == pytest.approx(1, rel=0.05)
