"""Every registered schedule runs from data to noise, and those made of betas agree with their textbook tables."""

import pytest
import torch

from ldmctl import registry
from ldmctl.diffusion.process import timestep
from ldmctl.testing import check_schedule

NAMES = [plugin.name for plugin in registry.plugins("schedule")]
DIFFUSERS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled-linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
}


def made(name, **options):
    plugin = registry.load("schedule", name)
    return plugin(plugin.Config(type=name, **options))


def test_the_four_schedules_are_registered():
    assert set(NAMES) >= {"cosine", "flow", "linear", "scaled-linear"}


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_keeps_its_promise(name):
    check_schedule(registry.load("schedule", name))


@pytest.mark.parametrize("name", NAMES)
def test_time_0_is_data_and_time_1_is_nearly_all_noise(name):
    alpha, sigma = made(name).marginal(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert alpha[0] == 1
    assert sigma[0] == 0
    assert 0 <= alpha[1] < 0.07
    assert sigma[1] > 0.99


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_level_of_noise_rises_and_the_dtype_stays(name, dtype):
    alpha, sigma = made(name).marginal(torch.linspace(0, 1, 2001, dtype=dtype))
    assert alpha.dtype == sigma.dtype == dtype
    assert ((sigma / alpha).diff() > 0).all()


@pytest.mark.parametrize("name", ["cosine", "flow"])
def test_pure_noise_is_exactly_pure(name):
    alpha, sigma = made(name).marginal(torch.ones(1))
    assert (alpha.item(), sigma.item()) == (0, 1)


@pytest.mark.parametrize("name", DIFFUSERS)
def test_betas_give_the_textbook_table_at_i_over_T(name):
    diffusers = pytest.importorskip("diffusers")
    table = diffusers.DDPMScheduler(num_train_timesteps=1000, **DIFFUSERS[name]).alphas_cumprod.double()
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    alpha, sigma = made(name).marginal(t)
    torch.testing.assert_close(alpha**2, table, atol=1e-6, rtol=0)
    torch.testing.assert_close(sigma**2, 1 - table, atol=1e-6, rtol=0)
    assert timestep(made(name), t).tolist() == list(range(1000))


@pytest.mark.parametrize("name", DIFFUSERS)
def test_between_two_steps_the_table_is_smooth(name):
    schedule = made(name, timesteps=10)
    alpha, _ = schedule.marginal(torch.linspace(0.1, 0.2, 3, dtype=torch.float64))
    torch.testing.assert_close(alpha[1], (alpha[0] * alpha[2]).sqrt())  # the logarithm is interpolated
