"""Every registered sampler finds a known answer; DDIM and DDPM walk the same way as diffusers' schedulers."""

from itertools import pairwise

import pytest
import torch
from small_network import SmallNetwork, assert_same_way

from ldmctl import registry
from ldmctl.diffusion.denoise import Denoise, Noise, clean_from
from ldmctl.diffusion.spacing import CEILING, levels, start
from ldmctl.testing import check_sampler

NAMES = [plugin.name for plugin in registry.plugins("sampler")]
SCHEDULES = [plugin.name for plugin in registry.plugins("schedule")]
MEAN, DEVIATION = 0.3, 0.5
BETAS = {"linear": ("linear", 1e-4, 0.02), "scaled-linear": ("scaled_linear", 0.00085, 0.012)}
AS_DIFFUSERS_SAYS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def made(kind, name, **options):
    plugin = registry.load(kind, name)
    return plugin(plugin.Config(type=name, **options))


def ideal_network(schedule, prediction):
    """The best network for data from N(MEAN, DEVIATION^2), which looks its time up from what it is told."""

    def network(x, told, condition):
        t = (told.double() + 1) / schedule.timesteps if hasattr(schedule, "timesteps") else told.double() / 1000
        alpha, sigma = (value.reshape(-1, 1, 1, 1) for value in schedule.marginal(t))
        gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
        clean = MEAN + gain * (x - alpha * MEAN)
        noise = (x - alpha * clean) / sigma
        return {"eps": noise, "x0": clean, "v": alpha * noise - sigma * clean, "flow": noise - clean}[prediction].float()

    return network


def ideal_denoise(x, sigma):
    return MEAN + DEVIATION**2 / (DEVIATION**2 + sigma**2) * (x - MEAN)


def euler(denoise, x, sigmas):
    for sigma, sigma_next in pairwise(sigmas):
        x = x + (x - denoise(x, sigma)) / sigma * (sigma_next - sigma)
    return x


def test_ddim_and_ddpm_are_registered():
    assert set(NAMES) >= {"ddim", "ddpm"}


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_keeps_its_promise(name):
    check_sampler(registry.load("sampler", name))


def test_ddim_is_euler_in_noise_levels():
    _, sigmas = levels(made("schedule", "linear"), 30)
    x = start(torch.randn(2, 3, 4, 4, dtype=torch.float64), sigmas)
    ours = made("sampler", "ddim")(ideal_denoise, x, sigmas, noise=None)
    torch.testing.assert_close(ours, euler(ideal_denoise, x, sigmas), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "flow"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_whatever_a_network_predicts_the_sample_is_the_same(name, prediction):
    schedule = made("schedule", name)
    _, sigmas = levels(schedule, 40)
    x = start(Noise([1], (1, 16, 16)).first(), sigmas)
    ours = made("sampler", "ddim")(Denoise(ideal_network(schedule, prediction), schedule, prediction), x, sigmas, noise=None)
    exact = made("sampler", "ddim")(ideal_denoise, x.double(), sigmas, noise=None)
    # pure noise tells an eps-network nothing, so its first step aims at the mean of latents, 0; sigmoid's first step is the longest
    tolerance = {"sigmoid": 0.02}.get(name, 0.01) if prediction == "eps" and sigmas[0] == CEILING else 1e-4
    torch.testing.assert_close(ours.double(), exact, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_leads_from_the_same_noise_to_the_same_sample(name):
    schedule = made("schedule", name)
    _, sigmas = levels(schedule, 500)
    noise = Noise([1], (1, 16, 16)).first()
    ours = made("sampler", "ddim")(ideal_denoise, start(noise, sigmas), sigmas, noise=None)
    torch.testing.assert_close(ours, MEAN + DEVIATION * noise, atol=0.03, rtol=0)


@pytest.mark.parametrize(("schedule_name", "prediction"), [*((name, "v") for name in SCHEDULES), ("cosine", "eps")])
@pytest.mark.parametrize(
    ("name", "options"), [("ddim", {}), ("ddpm", {}), ("unipc", {}), ("ddim", {"eta": 0.7}), ("ddpm", {"variance": "large"})], ids=str
)
def test_gaussian_data_is_sampled_with_its_mean_and_deviation(name, options, schedule_name, prediction):
    schedule = made("schedule", schedule_name)
    _, sigmas = levels(schedule, 150)
    noise = Noise([3], (1, 64, 64))
    denoise = Denoise(ideal_network(schedule, prediction), schedule, prediction)
    sample = made("sampler", name, **options)(denoise, start(noise.first(), sigmas), sigmas, noise)
    assert sample.mean() == pytest.approx(MEAN, abs=0.03)
    assert sample.std() == pytest.approx(DEVIATION, abs=0.03)


# -- against diffusers -----------------------------------------------------------


def ours_and_theirs(scheduler, sampler, schedule, *, steps, spacing, prediction, **step_options):
    scheduler.set_timesteps(steps)
    _, sigmas = levels(schedule, steps, spacing)
    first = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs, generator, their_network, our_network = first, torch.Generator().manual_seed(1), SmallNetwork(), SmallNetwork()
    for k in scheduler.timesteps:
        theirs = scheduler.step(their_network(theirs, k), k, theirs, generator=generator, **step_options).prev_sample
    generator = torch.Generator().manual_seed(1)
    noise = lambda sigma, sigma_next: torch.randn(first.shape, generator=generator)
    ours = sampler(Denoise(our_network, schedule, prediction), start(first, sigmas), sigmas, noise)
    return [*our_network.asked, ours], [*their_network.asked, theirs]


def theirs_made(kind, name, prediction, spacing, **options):
    diffusers = pytest.importorskip("diffusers")
    beta_schedule, beta_start, beta_end = BETAS[name]
    return getattr(diffusers, kind)(
        beta_schedule=beta_schedule,
        beta_start=beta_start,
        beta_end=beta_end,
        prediction_type=AS_DIFFUSERS_SAYS[prediction],
        timestep_spacing=spacing,
        clip_sample=False,
        **options,
    )


@pytest.mark.parametrize("prediction", AS_DIFFUSERS_SAYS)
@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize(("steps", "spacing"), [(50, "trailing"), (7, "leading")])
def test_ddim_goes_where_diffusers_goes(steps, spacing, eta, name, prediction):
    theirs = theirs_made("DDIMScheduler", name, prediction, spacing, set_alpha_to_one=True)
    ours, theirs = ours_and_theirs(
        theirs, made("sampler", "ddim", eta=eta), made("schedule", name), steps=steps, spacing=spacing, prediction=prediction, eta=eta
    )
    assert_same_way(ours, theirs, atol=1e-4, rtol=1e-4)


# Without large and trailing: where its last step is not step 0, diffusers adds noise of variance beta to the finished sample.
@pytest.mark.parametrize("prediction", AS_DIFFUSERS_SAYS)
@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize(
    ("steps", "spacing", "variance"),
    [(50, "leading", "large"), (50, "trailing", "small"), (30, "linspace", "large")],
)
def test_ddpm_goes_where_diffusers_goes(steps, spacing, variance, name, prediction):
    theirs = theirs_made("DDPMScheduler", name, prediction, spacing, variance_type=f"fixed_{variance}")
    ours, theirs = ours_and_theirs(
        theirs, made("sampler", "ddpm", variance=variance), made("schedule", name), steps=steps, spacing=spacing, prediction=prediction
    )
    assert_same_way(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_goes_where_diffusers_goes_through_all_1000_steps(variance):
    theirs = theirs_made("DDPMScheduler", "linear", "v", "trailing", variance_type=f"fixed_{variance}")
    sampler, schedule = made("sampler", "ddpm", variance=variance), made("schedule", "linear")
    ours, theirs = ours_and_theirs(theirs, sampler, schedule, steps=1000, spacing="trailing", prediction="v")
    assert_same_way(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_moments_are_those_of_the_textbook_in_alpha_bar(variance):
    schedule = made("schedule", "linear")
    t = torch.tensor([0.5, 0.499], dtype=torch.float64)
    alpha, sigma = schedule.marginal(t)
    sigmas = torch.cat([sigma / alpha, torch.zeros(1).double()])
    bar, bar_next = alpha**2
    beta = 1 - bar / bar_next
    clean, x_t = torch.full((1, 1, 1, 1), 0.7).double(), torch.full((1, 1, 1, 1), -0.2).double()
    seen = []

    def denoise(x, level):
        seen.append(x)
        return clean

    made("sampler", "ddpm", variance=variance)(denoise, x_t / alpha[0], sigmas, lambda *_: torch.ones(1, 1, 1, 1).double())
    mean = bar_next.sqrt() * beta / (1 - bar) * clean + (1 - beta).sqrt() * (1 - bar_next) / (1 - bar) * x_t  # eq. 7
    spread = beta if variance == "large" else (1 - bar_next) / (1 - bar) * beta
    torch.testing.assert_close(seen[1] * alpha[1], mean + spread.sqrt(), atol=1e-12, rtol=1e-12)


def test_pure_noise_tells_an_eps_network_nothing():
    x_t = torch.randn(1, 2, 4, 4)
    assert clean_from("eps", x_t, x_t * 0.99, 0.0, 1.0).abs().max() == 0
