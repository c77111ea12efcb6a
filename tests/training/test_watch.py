"""A validation loss that rises is noticed, a noisy one that does not is never called rising."""

import math
import random

import pytest

from ldmctl.config.schemas.shared import Loop, Watch
from ldmctl.console import Console
from ldmctl.training.watch import LEAST, Curves, Rise, noise, risen, say_unwatched

# A run of 2,000 steps whose discriminator, beaten at once, was made louder from step 1,000 on: steps, the pixel loss, the perceptual one
WRECK = [1000, 1100, 1300, 1500, 1700, 2000], [0.127, 0.126, 0.140, 0.136, 0.238, 0.348], [0.274, 0.269, 0.281, 0.273, 0.446, 0.705]


def alarms(curve, bound=0.1):
    """After which values of a curve it is called risen."""
    steps = list(range(len(curve)))
    return [count for count in range(1, len(curve) + 1) if risen("loss", steps[:count], curve[:count], bound)]


def noisy(seed, *, deviation, length=60, heavy=False):
    """A flat curve: normal noise around 1, one value in twenty four times as far out where it is heavy."""
    draw = random.Random(seed)
    return [1 + deviation * draw.gauss(0, 1) * (4 if heavy and draw.random() < 0.05 else 1) for _ in range(length)]


def wandering(seed, *, deviation, kept, length=26):
    """A flat curve whose noise is carried on: each value keeps so much of the one before, as weights that are averaged do."""
    draw, values, out = random.Random(seed), [], 0.0
    for _ in range(length):
        out = kept * out + math.sqrt(1 - kept**2) * draw.gauss(0, 1)
        values.append(1 + deviation * out)
    return values


@pytest.mark.parametrize(("deviation", "heavy"), [(0.01, False), (0.05, False), (0.1, False), (0.05, True)])
def test_of_1000_noisy_flat_curves_fewer_than_ten_are_called_risen(deviation, heavy):
    called = sum(bool(alarms(noisy(seed, deviation=deviation, heavy=heavy), Watch().bound)) for seed in range(1000))
    assert called < 10


@pytest.mark.parametrize(("deviation", "kept"), [(0.03, 0.7), (0.02, 0.9)])
def test_of_1000_flat_curves_that_wander_fewer_than_ten_are_called_risen(deviation, kept):
    called = sum(bool(alarms(wandering(seed, deviation=deviation, kept=kept), Watch().bound)) for seed in range(1000))
    assert called < 10


def test_falling_curves_with_noise_are_not_called_risen():
    curves = [[value * (0.3 + math.exp(-place / 10)) for place, value in enumerate(noisy(seed, deviation=0.03))] for seed in range(300)]
    assert sum(bool(alarms(curve)) for curve in curves) < 3


@pytest.mark.parametrize("losses", WRECK[1:], ids=["pixel", "perceptual"])
@pytest.mark.parametrize("halved_in", [100, 200, 300])
def test_the_run_that_a_loud_discriminator_wrecked_is_noticed_though_its_losses_fell_fast_before(losses, halved_in):
    steps = list(range(80, 2001, 80))

    def loss(step):
        if step <= WRECK[0][0]:
            return losses[0] * (1 + 3 * 0.5 ** (step / halved_in))
        place = next(place for place, at in enumerate(WRECK[0]) if at >= step)
        (left, right), (low, high) = WRECK[0][place - 1 : place + 1], losses[place - 1 : place + 1]
        return low + (high - low) * (step - left) / (right - left)

    curve = [loss(step) for step in steps]
    first = next(count for count in range(1, len(steps) + 1) if risen("loss", steps[:count], curve[:count], Watch().bound))
    assert 1500 < steps[first - 1] <= 1920


@pytest.mark.parametrize("count", [12, 20])
@pytest.mark.parametrize("power", [0.3, 0.5])
def test_a_rise_by_a_fifth_of_a_curve_that_still_falls_is_noticed(power, count):
    curve = [(place + 1) ** -power for place in range(count)]
    assert alarms([*curve, *[1.2 * curve[-1]] * 3]) == [count + 3] and not alarms([*curve, *[1.05 * curve[-1]] * 3])


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
    assert str(curves.risen(0.1)) == "pixel has risen from 0.2 around step 1,400 to 0.6 or more in its last three validations"


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


def test_a_fall_is_no_noise_and_one_that_bends_hardly_is():
    assert noise([10.0 - place for place in range(20)]) == pytest.approx(0, abs=1e-9)
    assert noise([0.3 + math.exp(-place / 4) for place in range(24)]) < 0.01


@pytest.mark.parametrize("slope", [0.0, 0.02, 1.0])
def test_the_noise_of_a_curve_that_falls_is_found(slope):
    draw = random.Random(0)
    assert noise([10 - slope * place + draw.gauss(0, 1) for place in range(2000)]) == pytest.approx(1, rel=0.1)


def test_what_wanders_up_and_down_is_noise_though_it_is_smooth():
    assert noise([math.sin(place / 4) for place in range(50)]) > 0.4


def test_a_loss_comes_back_where_it_has_fallen_by_a_tenth_of_its_rise():
    rise, curves = Rise("val/pixel", best=1.0, at=100, now=1.8), Curves({})
    for step, value in enumerate([1.0, 2.0, 2.0, 2.0, 1.89]):
        curves.add(step, {"val/pixel": value})
    assert curves.falls(rise, 3) and not curves.falls(rise, 4)
    curves.add(5, {"val/pixel": 1.92})
    assert not curves.falls(rise, 3)


def test_what_a_loss_was_around_a_step_is_the_median_of_the_last_three():
    curves = Curves({})
    for step, value in [(10, 5.0), (20, 1.0), (30, 9.0), (40, 2.0)]:
        curves.add(step, {"val/pixel": value})
    assert [curves.around("val/pixel", step) for step in (9, 10, 35, 99)] == [None, 5.0, 5.0, 2.0]
    assert curves.around("val/lpips", 99) is None


@pytest.mark.parametrize(("held_out", "bound", "told"), [(0, 0.1, True), (1, 0.1, False), (0, None, False)])
def test_a_run_that_would_be_watched_says_that_it_holds_nothing_out(held_out, bound, told, capsys):
    say_unwatched(Loop(watch=Watch(bound=bound)), held_out, Console())
    assert ("Nothing is held out, so losses that rise are not noticed" in capsys.readouterr().err) == told
