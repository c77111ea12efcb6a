"""Every registered schedule runs from data to noise, and those made of betas agree with their textbook tables."""

import math

import pytest
import torch

from ldmctl import registry
from ldmctl.config.levels import Spacing
from ldmctl.diffusion.denoise import Denoise
from ldmctl.diffusion.process import draw_times, timestep
from ldmctl.diffusion.spacing import levels
from ldmctl.testing import check_schedule

NAMES = [plugin.name for plugin in registry.plugins("schedule")]
DIFFUSERS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled-linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
}


def made(name, **options):
    plugin = registry.load("schedule", name)
    return plugin(plugin.Config(type=name, **options))


def test_the_schedules_are_registered():
    assert set(NAMES) >= {"cosine", "edm", "flow", "linear", "scaled-linear", "sigmoid"}


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_keeps_its_promise(name):
    check_schedule(registry.load("schedule", name))


@pytest.mark.parametrize("name", NAMES)
def test_time_0_is_data_and_time_1_is_nearly_all_noise(name):
    alpha, sigma = made(name).marginal(torch.tensor([0.0, 1.0], dtype=torch.float64))
    if name == "edm":  # which ends at its lowest level
        assert (sigma[0] / alpha[0]).item() == pytest.approx(0.004)
    else:
        assert (alpha[0], sigma[0]) == (1, 0)
    assert 0 <= alpha[1] < 0.07
    assert sigma[1] > 0.99


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_level_of_noise_rises_and_the_dtype_stays(name, dtype):
    alpha, sigma = made(name).marginal(torch.linspace(0, 1, 2001, dtype=dtype))
    assert alpha.dtype == sigma.dtype == dtype
    assert ((sigma / alpha).diff() > 0).all()


@pytest.mark.parametrize("name", ["cosine", "flow", "sigmoid"])
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


# -- zero terminal signal ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIFFUSERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_zero_terminal_the_last_step_is_pure_noise_and_the_first_is_as_it_was(name, dtype):
    check_schedule(registry.load("schedule", name), zero_terminal=True)
    t = torch.tensor([1 / 1000, 1], dtype=dtype)
    (alpha, sigma), (plain, _) = made(name, zero_terminal=True).marginal(t), made(name).marginal(t)
    assert (alpha[1], sigma[1]) == (0, 1)
    torch.testing.assert_close(alpha[0], plain[0])


@pytest.mark.parametrize("name", DIFFUSERS)
def test_zero_terminal_gives_the_table_of_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    table = diffusers.DDIMScheduler(num_train_timesteps=1000, rescale_betas_zero_snr=True, **DIFFUSERS[name]).alphas_cumprod.double()
    alpha, _ = made(name, zero_terminal=True).marginal(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(alpha**2, table, atol=2e-6, rtol=0)


# -- times of training ---------------------------------------------------------------------------------


def test_edm_is_trained_at_levels_whose_logarithms_are_normal():
    schedule = made("edm")
    alpha, sigma = schedule.marginal(draw_times(schedule, torch.linspace(0.0005, 0.9995, 1000)))
    logarithm = (sigma / alpha).log()
    assert logarithm.mean().item() == pytest.approx(-0.5, abs=0.01)
    assert logarithm.std().item() == pytest.approx(1.2, abs=0.02)
    for u in (0.0, 1 - 2**-24):
        assert 0 < draw_times(schedule, torch.tensor([u])).item() < 1


def test_shift_of_flow_trains_more_on_noise_and_moves_no_level():
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert draw_times(made("flow", shift=3), u).tolist() == pytest.approx([0.25, 0.75, 0.9642857])
    assert torch.equal(draw_times(made("flow"), u), u)
    assert torch.equal(made("flow", shift=3).marginal(u)[1], u)


def test_edm_with_v_is_the_preconditioning_of_edm():
    """D = c_skip x + c_out F(c_in x, c_noise) for data of deviation 0.5, and the number that diffusers' test_scheduler_edm_euler.py:35 ends at."""
    sigma_data, schedule = 0.5, made("edm")
    F = lambda x, sigma: x * (math.log(sigma) / 4) / (math.log(sigma) / 4 + 1)  # its network u t / (t + 1) at c_noise

    def theirs(x, sigma):
        total = sigma**2 + sigma_data**2
        return sigma_data**2 / total * x + sigma * sigma_data / total**0.5 * F(x / total**0.5, sigma)

    def network(x, told, condition):
        alpha, sigma = schedule.marginal(told[:1].double() / 1000)
        return -F(x, (sigma / alpha).item() * sigma_data)

    ours = Denoise(network, schedule, "v")  # of x / sigma_data
    x = torch.linspace(-3, 3, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    for sigma in (0.01, 0.3, 2.0, 40.0):
        torch.testing.assert_close(ours(x / sigma_data, sigma / sigma_data) * sigma_data, theirs(x, sigma), atol=1e-4, rtol=1e-4)
    count = torch.arange(768, dtype=torch.float64).reshape(3, 8, 8, 4).permute(3, 0, 1, 2) / 768
    _, sigmas = levels(schedule, 10, Spacing(type="karras", lowest=0.004, highest=160))
    sampler = registry.load("sampler", "euler")
    found = sampler(sampler.Config())(ours, count * (80**2 + 1) ** 0.5 / sigma_data, sigmas, None) * sigma_data
    assert found.abs().sum().item() == pytest.approx(34.1855, abs=1e-3)


def test_sigmoid_is_the_published_formula():
    """alpha^2 = (s(3) - s(6 t - 3)) / (s(3) - s(-3)), whose middle is 1/2."""
    alpha, sigma = made("sigmoid").marginal(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    s = lambda x: 1 / (1 + math.exp(-x))
    assert (alpha**2).tolist() == pytest.approx([(s(3) - s(x)) / (s(3) - s(-3)) for x in (-1.5, 0, 1.5)])
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3).double())
