"""Times that a denoiser is trained at, weights of its losses, and the bins of a validation."""

import math

import pytest
import torch

from ldmctl import registry
from ldmctl.config.schemas.fit_diffusion import Times, Weighting
from ldmctl.diffusion.denoise import clean_from
from ldmctl.diffusion.process import draw_times, noised, target
from ldmctl.diffusion.weighting import (
    Uncertainty,
    binned,
    clean_error_factor,
    log_level,
    loss_weight,
    noise_error_factor,
    positions,
    validation_times,
    with_uncertainty,
)

SCHEDULES = [plugin.name for plugin in registry.plugins("schedule")]
PREDICTIONS = ["eps", "x0", "v", "flow"]
KINDS = ["none", "min-snr", "soft-min-snr", "learned"]


def made(name):
    plugin = registry.load("schedule", name)
    return plugin(plugin.Config(type=name))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class At:
    """A schedule that is at one place whatever the time."""

    def __init__(self, alpha, sigma):
        self.alpha, self.sigma = alpha, sigma

    def marginal(self, t):
        return torch.full_like(t, self.alpha), torch.full_like(t, self.sigma)


# -- times -----------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_uniform_and_stratified_positions_have_mean_a_half_and_variance_a_twelfth(sampling):
    u = positions(Times(sampling=sampling), 100_000, seeded(), "cpu").double()
    assert u.min() >= 0 and u.max() < 1
    assert u.mean() == pytest.approx(1 / 2, abs=4e-3)
    assert u.var() == pytest.approx(1 / 12, abs=1e-3)


def test_uniform_positions_are_the_generators_own_numbers():
    assert torch.equal(positions(Times(), 50, seeded(3), "cpu"), torch.rand(50, generator=seeded(3)))


@pytest.mark.parametrize("count", [1, 7, 49, 64, 1000])
def test_stratified_positions_meet_each_part_exactly_once(count):
    u = positions(Times(sampling="stratified"), count, seeded(), "cpu").sort().values
    index = torch.arange(count, dtype=torch.float64)
    assert bool((index / count <= u).all()) and bool((u < (index + 1) / count).all())


def test_each_half_of_a_stratified_batch_sees_all_levels():
    u = positions(Times(sampling="stratified"), 256, seeded(), "cpu")
    for half in u.chunk(2):
        assert min((half.mul(4).floor() == part).sum() for part in range(4)) >= 15  # 32 on average


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-0.8, 0.5), (1.2, 1.6)])
def test_logit_normal_positions_have_the_logits_they_are_named_for(mean, deviation):
    u = positions(Times(sampling="logit-normal", mean=mean, deviation=deviation), 100_000, seeded(), "cpu")
    logits = u.logit()
    assert logits.mean() == pytest.approx(mean, abs=0.02)
    assert logits.std() == pytest.approx(deviation, rel=0.01)
    assert u.median() == pytest.approx(1 / (1 + math.exp(-mean)), abs=0.01)


@pytest.mark.parametrize("sampling", ["uniform", "stratified", "logit-normal"])
def test_the_same_generator_gives_the_same_positions_and_another_one_others(sampling):
    first, again, other = (positions(Times(sampling=sampling), 32, seeded(seed), "cpu") for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_positions_stay_below_one_however_far_out_the_logit_normal_lies():
    u = positions(Times(sampling="logit-normal", mean=60), 100, seeded(), "cpu")
    assert u.max() < 1 and u.float().max() < 1
    for name in SCHEDULES:
        assert draw_times(made(name), u).max() <= 1


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("count", [1, 2, 13, 512])
def test_validation_times_are_evenly_spread_and_neighbours_are_far_apart(name, count):
    schedule = made(name)
    t = validation_times(schedule, count)
    even = draw_times(schedule, (torch.arange(count, dtype=torch.float64) + 0.5) / count)
    torch.testing.assert_close(t.sort().values, even, rtol=0, atol=1e-12)  # a vectorised quantile depends on its place in the last bit
    assert count < 10 or t.diff().abs().min() > (0.09 if name == "edm" else 0.3)  # edm trains on the middle third of its times
    assert torch.equal(t, validation_times(schedule, count))


def test_any_stretch_of_validation_items_meets_every_quarter_of_time():
    t = validation_times(made("flow"), 512)
    for first in range(0, 512, 16):
        quarters = (t[first : first + 16] * 4).floor()
        assert sorted(set(quarters.tolist())) == [0, 1, 2, 3]


# -- weights ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "prediction", "alpha", "sigma", "weight"),
    [  # SNR 16/9 below gamma = 5; SNR 9 above it; SNR 4 and 1/4 on the straight line
        ("min-snr", "x0", 0.8, 0.6, 16 / 9),
        ("min-snr", "eps", 0.8, 0.6, 1.0),
        ("min-snr", "v", 0.8, 0.6, 0.64),
        ("min-snr", "x0", 0.9**0.5, 0.1**0.5, 5.0),
        ("min-snr", "eps", 0.9**0.5, 0.1**0.5, 5 / 9),
        ("min-snr", "v", 0.9**0.5, 0.1**0.5, 0.5),
        ("min-snr", "flow", 2 / 3, 1 / 3, 4 / 9),
        ("min-snr", "flow", 0.8, 0.2, 0.2),  # min(16, 5) x 0.2^2
        ("min-snr", "flow", 1 / 3, 2 / 3, 1 / 9),
        ("soft-min-snr", "x0", 0.9**0.5, 0.1**0.5, 45 / 14),
        ("soft-min-snr", "eps", 0.9**0.5, 0.1**0.5, 5 / 14),
        ("soft-min-snr", "v", 0.9**0.5, 0.1**0.5, 4.5 / 14),
        ("soft-min-snr", "flow", 2 / 3, 1 / 3, 20 / 81),
        ("none", "eps", 0.8, 0.6, 1.0),
        ("learned", "v", 0.8, 0.6, 1.0),
    ],
)
def test_weights_are_those_worked_out_by_hand(kind, prediction, alpha, sigma, weight):
    given = loss_weight(Weighting(kind=kind), prediction, At(alpha, sigma), torch.zeros(2, dtype=torch.float64))
    assert given.dtype == torch.float32 and given.shape == (2,)
    assert given.tolist() == pytest.approx([weight, weight], rel=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_factor_is_the_squared_derivative_of_the_clean_latent(name, prediction):
    alpha, sigma = made(name).marginal(torch.linspace(0.01, 0.99, 50, dtype=torch.float64))
    output = torch.zeros(50, 1, dtype=torch.float64, requires_grad=True)
    clean = clean_from(prediction, torch.ones(50, 1, dtype=torch.float64), output, alpha, sigma)
    (slope,) = torch.autograd.grad(clean.sum(), output)
    torch.testing.assert_close(clean_error_factor(prediction, alpha, sigma), slope[:, 0].square())
    torch.testing.assert_close(noise_error_factor(prediction, alpha, sigma), (slope[:, 0] * alpha / sigma).square())


@pytest.mark.parametrize("kind", ["min-snr", "soft-min-snr"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_prediction_is_weighted_to_the_same_loss_of_the_clean_latent(name, prediction, kind):
    schedule, gamma = made(name), 3.0
    clean, noise, wrong = (torch.randn(64, 2, 3, 3, generator=seeded(seed)).double() for seed in range(3))
    t = draw_times(schedule, torch.linspace(0.02, 0.95, 64))
    alpha, sigma = schedule.marginal(t)
    wanted = target(prediction, schedule, clean, noise, t).double()
    said = clean_from(prediction, noised(schedule, clean, noise, t).double(), wanted + wrong, alpha, sigma)
    right = clean_from(prediction, noised(schedule, clean, noise, t).double(), wanted, alpha, sigma)
    snr = (alpha / sigma).square()
    weight = snr.clamp(max=gamma) if kind == "min-snr" else snr * gamma / (snr + gamma)
    given = loss_weight(Weighting(kind=kind, gamma=gamma), prediction, schedule, t)
    torch.testing.assert_close(
        given.double() * wrong.square().mean((1, 2, 3)), weight * (said - right).square().mean((1, 2, 3)), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_weights_are_finite_where_there_is_no_noise_and_where_there_is_nothing_else(prediction, kind):
    for name in SCHEDULES:
        ends = torch.tensor([0.0, 1e-12, 1e-5, 1 - 1e-5, 1 - 1e-12, 1.0], dtype=torch.float64)
        assert loss_weight(Weighting(kind=kind), prediction, made(name), ends).isfinite().all(), name


@pytest.mark.parametrize("kind", ["min-snr", "soft-min-snr"])
def test_at_the_ends_weights_are_their_limits(kind):
    weighting, t = Weighting(kind=kind, gamma=4), torch.zeros(1, dtype=torch.float64)
    clean = {"eps": 0.0, "x0": 4.0, "v": 0.0, "flow": 0.0}  # sigma = 0: SNR is infinite
    noise = {"eps": 1.0, "x0": 0.0, "v": 0.0, "flow": 0.0}  # alpha = 0: SNR is 0
    for prediction in PREDICTIONS:
        assert loss_weight(weighting, prediction, At(1.0, 0.0), t).item() == clean[prediction]
        assert loss_weight(weighting, prediction, At(0.0, 1.0), t).item() == noise[prediction]


# -- learned weights -------------------------------------------------------------


def test_an_uncertainty_begins_as_weight_one_for_every_level():
    uncertainty, losses = Uncertainty(), torch.tensor([0.5, 2.0, 3.0])
    u = uncertainty(torch.tensor([-9.0, 0.0, 9.0]))
    assert u.tolist() == [0, 0, 0] and u.dtype == torch.float32
    assert with_uncertainty(losses, u)[0].tolist() == losses.tolist()


def test_at_the_optimum_the_uncertainty_is_the_logarithm_of_the_loss():
    random, uncertainty = seeded(), Uncertainty()
    optimizer = torch.optim.Adam(uncertainty.parameters())
    schedule = made("cosine")

    def expected(level):
        return torch.exp(-1 - 1.5 * torch.tanh(level / 2))  # from 0.9 near clean to 0.08 near noise

    for step in range(300):
        level = log_level(schedule, draw_times(schedule, torch.rand(256, generator=random)))
        losses = expected(level) * (1 + 0.2 * torch.randn(256, generator=random))
        with_uncertainty(losses, uncertainty(level))[1].mean().backward()
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 300)
        optimizer.step()
        optimizer.zero_grad()
    level = torch.linspace(-3, 3, 25)
    torch.testing.assert_close(uncertainty(level), expected(level).log(), atol=0.08, rtol=0)
    assert (with_uncertainty(expected(level), uncertainty(level))[0] - 1).abs().max() < 0.08  # all levels count alike


def test_apart_the_two_losses_have_the_gradients_of_the_joint_one():
    losses, u = (torch.rand(8, generator=seeded(seed), requires_grad=True) for seed in (0, 1))
    joint = torch.autograd.grad((losses / u.exp() + u).sum(), (losses, u))
    of_denoiser, of_uncertainty = with_uncertainty(losses, u)
    torch.testing.assert_close(torch.autograd.grad(of_denoiser.sum() + of_uncertainty.sum(), (losses, u)), joint)


def test_an_uncertainty_of_the_same_seed_has_the_same_features_and_keeps_them_in_its_state():
    torch.manual_seed(5)
    first = Uncertainty(16).state_dict()
    torch.manual_seed(6)
    again, other = Uncertainty(16).state_dict(), Uncertainty(16, seed=1).state_dict()
    assert {"frequencies", "phases"} < set(first)
    assert torch.equal(first["frequencies"], again["frequencies"]) and not torch.equal(first["frequencies"], other["frequencies"])


# -- validation ------------------------------------------------------------------


def test_log_levels_are_finite_at_both_ends_and_zero_where_signal_and_noise_are_equal():
    for name in SCHEDULES:
        level = log_level(made(name), torch.tensor([0.0, 1.0], dtype=torch.float64))
        assert level.dtype == torch.float32 and level.isfinite().all() and level[0] < 0 < level[1]
    half = log_level(made("flow"), torch.tensor([0.5, 0.75], dtype=torch.float64))
    assert half.tolist() == pytest.approx([0, math.log(3)])


def test_bins_are_named_by_their_levels_and_hold_the_mean_of_their_values():
    levels = torch.tensor([0.1, 0.2, 0.5, 2.0, 3.5, 1e4]).log()
    assert binned(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]), levels) == {
        "val/loss_sigma_0-0.33": 1.5,
        "val/loss_sigma_0.33-1": 4.0,
        "val/loss_sigma_1-3": 8.0,
        "val/loss_sigma_3-inf": 24.0,
    }


def test_a_bin_without_values_is_left_out():
    assert binned(torch.tensor([3.0]), torch.tensor([0.5]).log(), (1.0,)) == {"val/loss_sigma_0-1": 3.0}
    assert binned(torch.empty(0), torch.empty(0)) == {}


def test_the_bins_are_the_quarters_of_flow():
    schedule = made("flow")
    t = validation_times(schedule, 512)
    assert list(binned((4 * t).floor(), log_level(schedule, t)).values()) == [0, 1, 2, 3]
