"""Sums and means that diffusers' own tests hold its schedulers to (tests/schedulers/test_scheduler_*.py), reached by our samplers.

Their sample is S = 0..767 over 768 as [4,3,8,8], their network u t / (t + 1), their schedule the betas 1e-4 to 0.02. Left out are the
numbers of tests whose loop hands the scaled sample back to the scheduler (euler 10.0807, euler_ancestral, heun, kdpm2, lms, dpm_sde,
sasolver): they are of a wrong sampler, as a right Euler's method ends at 168.05. dpm_single has no counterpart here: it takes two levels a step.
"""

import math

import pytest
import torch

from ldmctl import registry
from ldmctl.diffusion.denoise import Denoise
from ldmctl.diffusion.spacing import levels, time_of

COUNT = torch.arange(768, dtype=torch.float64).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
SAMPLE, FLIPPED = COUNT / 768, (767 - COUNT) / 768


def made(kind, name, **options):
    plugin = registry.load(kind, name)
    return plugin(plugin.Config(type=name, **options))


def network(x, told, condition):
    step = told.double().round()[0]  # between two steps theirs is told the nearer one
    return x * (step / (step + 1))


def level(schedule, step):
    alpha, sigma = schedule.marginal(torch.tensor([(step + 1) / 1000], dtype=torch.float64))
    return (sigma / alpha).item()


def linspace_levels(schedule):
    return [level(schedule, step) for step in torch.linspace(0, 999, 11, dtype=torch.float64).round().flip(0)[:-1].tolist()]


def leading_levels(schedule):
    return [level(schedule, step) for step in range(900, -1, -100)]


def result(sampler, sigmas, prediction="eps", *, beta_start=1e-4, x=None, clamp=False, noise=None):
    """What a sampler ends with, as diffusers has it: x_t, from S or from x at the first level."""
    schedule = made("schedule", "linear", beta_start=beta_start)
    sigmas = torch.tensor(sigmas, dtype=torch.float64)
    denoise = Denoise(network, schedule, prediction)
    within = (lambda x, sigma: denoise(x, sigma).clamp(-1, 1)) if clamp else denoise
    x = SAMPLE * (1 + sigmas[0] ** 2).sqrt() if x is None else x
    return sampler(within, x, sigmas, noise) / (1 + sigmas[-1] ** 2).sqrt()


def linear(**options):
    return made("schedule", "linear", **options)


@pytest.mark.parametrize(("prediction", "wanted"), [("eps", 172.0067), ("v", 52.5302)])
def test_ddim_ends_at_the_published_sum(prediction, wanted):
    sigmas = [*leading_levels(linear()), 0]
    torch.testing.assert_close(torch.tensor(sigmas).double(), levels(linear(), 10, "leading")[1])
    assert result(made("sampler", "ddim"), sigmas, prediction).abs().sum().item() == pytest.approx(wanted, abs=1e-2)


@pytest.mark.parametrize(("to_clean", "wanted"), [(True, 149.8295), (False, 149.0784)])
def test_ddim_ends_at_the_published_sum_with_stronger_betas(to_clean, wanted):
    sigmas = [*leading_levels(linear(beta_start=0.01)), *([0] if to_clean else [])]
    assert result(made("sampler", "ddim"), sigmas, beta_start=0.01).abs().sum().item() == pytest.approx(wanted, abs=1e-2)


@pytest.mark.parametrize(("name", "place", "wanted"), [("ddim", 8, 354.5418), ("dpmpp-2m", 5, 318.4111), ("unipc", 8, 315.5757)])
def test_from_a_noised_picture_samplers_end_at_the_published_sum(name, place, wanted):
    schedule = linear()
    sigmas = ([*leading_levels(schedule), 0] if name == "ddim" else [*linspace_levels(schedule), level(schedule, 0)])[place:]
    found = result(made("sampler", name), sigmas, x=SAMPLE + sigmas[0] * FLIPPED)
    assert found.abs().sum().item() == pytest.approx(wanted, abs=1e-2)


@pytest.mark.parametrize(("prediction", "wanted"), [("eps", 258.9606), ("v", 202.0296)])
def test_ddpm_ends_at_the_published_sum_after_1000_steps(prediction, wanted):
    """Theirs clamps the clean estimate to +-1."""
    generator = torch.Generator().manual_seed(0)
    noise = lambda sigma, sigma_next: torch.randn((4, 3, 8, 8), generator=generator)
    sigmas = [*(level(linear(), step) for step in range(999, -1, -1)), 0]
    found = result(made("sampler", "ddpm"), sigmas, prediction, clamp=True, noise=noise)
    assert found.abs().sum().item() == pytest.approx(wanted, abs=1e-2)


@pytest.mark.parametrize(
    ("name", "prediction", "wanted"),
    [
        ("dpmpp-2m", "eps", 0.3301),
        ("dpmpp-2m", "v", 0.2251),
        ("unipc", "eps", 0.2464),
        ("unipc", "v", 0.1014),
        ("deis", "eps", 0.23916),
        ("deis", "v", 0.091),
    ],
)
def test_multistep_samplers_end_at_the_published_mean(name, prediction, wanted):
    sigmas = [*linspace_levels(linear()), level(linear(), 0)]
    assert result(made("sampler", name), sigmas, prediction).abs().mean().item() == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "spacing", "prediction", "wanted"),
    [
        ("dpmpp-2m", "karras", "v", 0.2096),
        ("dpmpp-2m", "exponential", "v", 0.1554),
        ("unipc", "karras", "eps", 0.2925),
        ("unipc", "karras", "v", 0.1966),
    ],
)
def test_multistep_samplers_end_at_the_published_mean_with_other_spacings(name, spacing, prediction, wanted):
    """Theirs visits the last level twice, a step of no length; unipc corrects itself there."""
    *visited, _ = levels(linear(), 10, spacing)[1].tolist()
    again = visited[-1] * (1 - 1e-9)
    assert result(made("sampler", name), [*visited, again], prediction).abs().mean().item() == pytest.approx(wanted, abs=1e-3)


def test_times_between_steps_are_told_as_they_are():
    """Where theirs rounds, the network here hears the time of the level itself."""
    schedule = linear()
    between = math.sqrt(level(schedule, 500) * level(schedule, 501))
    assert 500 < (time_of(schedule, between) * 1000 - 1).item() < 501
