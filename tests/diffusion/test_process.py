"""Training targets and the way back, guidance, levels, and noise that knows its picture."""

import pytest
import torch
from torch import nn

from ldmctl import registry
from ldmctl.diffusion.denoise import Denoise, Noise, clean_from, joined
from ldmctl.diffusion.process import draw_times, noised, target, timestep
from ldmctl.diffusion.spacing import CEILING, levels, start, time_of
from ldmctl.errors import ConfigError, PluginError
from ldmctl.protocols import Condition

SCHEDULES = [plugin.name for plugin in registry.plugins("schedule")]
BETAS = ["linear", "scaled-linear"]
PREDICTIONS = ["eps", "x0", "v", "flow"]


def made(name, **options):
    plugin = registry.load("schedule", name)
    return plugin(plugin.Config(type=name, **options))


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- training ------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_training_times_cover_the_schedule_and_nothing_else(name):
    u = torch.cat([torch.zeros(1), torch.linspace(0, 1 - 2**-24, 5000)])
    t = draw_times(made(name), u)
    assert t.dtype == torch.float64
    if name in BETAS:
        assert set((t * 1000).round().int().tolist()) == set(range(1, 1001))
        assert timestep(made(name), t).frac().abs().max() == 0
    else:
        assert t.min() > 0
        assert t.max() < 1


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_what_a_network_is_taught_leads_back_to_the_clean_latent(name, prediction):
    schedule = made(name)
    clean, noise = random(64, 3, 4, 4), random(64, 3, 4, 4, seed=1)
    t = draw_times(schedule, torch.linspace(0.01, 0.95, 64))
    output = target(prediction, schedule, clean, noise, t)
    x_t = noised(schedule, clean, noise, t)
    assert output.dtype == x_t.dtype == torch.float32
    torch.testing.assert_close(clean_from(prediction, x_t, output, *schedule.marginal(t)), clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_denoise_undoes_noise_when_the_network_is_right(name, prediction):
    schedule = made(name)
    clean, noise = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    for t in draw_times(schedule, torch.tensor([0.1, 0.5, 0.9])):
        alpha, sigma = schedule.marginal(t.reshape(1))

        def network(x, timesteps, condition, t=t):
            torch.testing.assert_close(x, noised(schedule, clean, noise, t.expand(2)), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(timesteps, timestep(schedule, t.expand(2)), atol=0, rtol=1e-6)
            return target(prediction, schedule, clean, noise, t.expand(2))

        level = (sigma / alpha)[0]
        estimate = Denoise(network, schedule, prediction)(clean + level.float() * noise, level)
        torch.testing.assert_close(estimate, clean, atol=1e-4, rtol=1e-4)


def test_half_precision_latents_give_float32_targets():
    clean, t = random(2, 1, 4, 4).half(), torch.tensor([0.2, 0.7])
    assert target("v", made("cosine"), clean, clean, t).dtype == torch.float32
    assert noised(made("cosine"), clean, clean, t).dtype == torch.float32


def test_an_unknown_prediction_is_a_config_error():
    with pytest.raises(ConfigError, match="none of eps, x0, v, flow"):
        target("epsilon", made("flow"), random(1, 1, 2, 2), random(1, 1, 2, 2), torch.tensor([0.5]))
    with pytest.raises(ConfigError, match="none of eps"):
        Denoise(nn.Identity(), made("flow"), "epsilon")


# -- levels ----------------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 7, 30, 50, 999, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_fall_strictly_to_0(name, steps, spacing):
    times, sigmas = levels(made(name), steps, spacing)
    assert times.dtype == sigmas.dtype == torch.float64
    assert (len(times), len(sigmas)) == (steps, steps + 1)
    assert sigmas.isfinite().all()
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0
    assert 0 < times[-1] <= times[0] <= 1
    assert spacing == "leading" or times[0] == 1


@pytest.mark.parametrize("kind", ["DDIMScheduler", "DDPMScheduler"])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [2, 7, 15, 50, 333, 600, 1000])
def test_spacings_visit_the_steps_that_diffusers_visits(steps, spacing, kind):
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, kind)(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    times, _ = levels(made("linear"), steps, spacing)
    assert timestep(made("linear"), times).tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("name", BETAS)
def test_at_textbook_levels_the_network_is_told_whole_steps(name):
    schedule, timesteps = made(name), []

    def network(x, k, condition):
        timesteps.append(k.item())
        return x

    _, sigmas = levels(schedule, 1000, "trailing")
    denoise = Denoise(network, schedule, "eps")
    for sigma in sigmas[:-1:3]:
        denoise(torch.zeros(1, 1, 1, 1), sigma)
    assert timesteps == list(range(999, -1, -3))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_time_of_a_level_is_exact(name):
    t = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.998 + 0.001
    alpha, sigma = made(name).marginal(t)
    found = torch.cat([time_of(made(name), level) for level in (sigma / alpha).tolist()])
    torch.testing.assert_close(found, t, atol=1e-12, rtol=0)


def test_more_steps_than_betas_are_refused():
    with pytest.raises(ConfigError, match="1 to 1000"):
        levels(made("linear"), 1001, "trailing")
    with pytest.raises(ConfigError, match="steps=0"):
        levels(made("cosine"), 0)
    with pytest.raises(ConfigError, match="Take fewer"):
        levels(made("flow"), 20_000, "trailing")
    with pytest.raises(ConfigError, match="trailing, leading, linspace"):
        levels(made("flow"), 10, "kerras")


@pytest.mark.parametrize("name", ["cosine", "flow"])
def test_pure_noise_stands_at_the_ceiling_and_reaches_the_network_unchanged(name):
    _, sigmas = levels(made(name), 10)
    assert sigmas[0] == CEILING
    noise, seen = random(2, 1, 4, 4), []

    def network(x, timesteps, condition):
        seen.append((x, timesteps))
        return -x  # v = flow = -clean, were it all noise

    Denoise(network, made(name), "v")(start(noise, sigmas), sigmas[0])
    torch.testing.assert_close(seen[0][0], noise, atol=1e-6, rtol=1e-6)
    assert seen[0][1].tolist() == [1000, 1000]


@pytest.mark.parametrize("name", BETAS)
def test_a_start_from_noise_has_deviation_1_in_the_eyes_of_the_network(name):
    _, sigmas = levels(made(name), 10, "leading")
    seen = []
    noise = random(2, 1, 4, 4)
    Denoise(lambda x, timesteps, condition: seen.append(x) or x, made(name), "eps")(start(noise, sigmas), sigmas[0])
    torch.testing.assert_close(seen[0], noise, atol=1e-6, rtol=1e-5)


def test_a_sampler_that_denoises_the_clean_latent_is_told_so():
    with pytest.raises(PluginError, match="at 0 all is clean"):
        Denoise(nn.Identity(), made("flow"), "v")(random(1, 1, 2, 2), 0.0)


# -- guidance ----------------------------------------------------------------------


class Listening(nn.Module):
    """Says the condition's vector, and counts how often and with how many it was asked."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x, timesteps, condition=None):
        self.batches.append(len(x))
        assert len(timesteps) == len(x)
        return torch.zeros_like(x) if condition is None else condition.vector.reshape(len(x), 1, 1, 1).expand_as(x).to(torch.bfloat16)


@pytest.mark.parametrize(("guidance", "said", "batch"), [(0.0, 1.0, 2), (1.0, 3.0, 2), (0.5, 2.0, 4), (4.0, 9.0, 4)])
def test_guidance_goes_from_nothing_to_the_condition_and_beyond(guidance, said, batch):
    network = Listening()
    parts = {"condition": Condition(vector=torch.full((2, 1), 3.0)), "null": Condition(vector=torch.full((2, 1), 1.0))}
    clean = Denoise(network, made("flow"), "x0", guidance=guidance, **parts)(random(2, 1, 2, 2), 1.0)
    assert clean.dtype == torch.float32
    assert clean.unique().tolist() == [said]
    assert network.batches == [batch]


def test_guidance_without_conditions_is_refused():
    with pytest.raises(ConfigError, match="trained with conditions"):
        Denoise(Listening(), made("flow"), "x0", guidance=2.0)


def test_conditions_of_different_length_are_padded_and_masked():
    both = joined(Condition(tokens=torch.ones(2, 5, 3)), Condition(tokens=torch.ones(2, 1, 3)))
    assert both.tokens.shape == (4, 5, 3)
    assert both.mask.sum(1).tolist() == [5, 5, 1, 1]
    same = joined(Condition(tokens=torch.ones(2, 5, 3)), Condition(tokens=torch.ones(2, 5, 3)))
    assert same.mask is None
    with pytest.raises(PluginError, match="only one of them has vector"):
        joined(Condition(vector=torch.ones(2, 5)), Condition())


# -- noise ---------------------------------------------------------------------------


def test_noise_depends_on_the_picture_alone():
    alone, batch = Noise([7], (4, 8, 8)), Noise([5, 7, 6], (4, 8, 8))
    assert torch.equal(alone.first()[0], batch.first()[1])
    assert torch.equal(alone(3.0, 2.0)[0], batch(3.0, 2.0)[1])
    assert not torch.equal(batch.first()[0], batch.first()[1])


def test_noise_of_a_step_does_not_depend_on_the_steps_before():
    hasty, patient = Noise([7], (4, 8, 8)), Noise([7], (4, 8, 8))
    patient(9.0, 5.0)
    patient(5.0, 3.0)
    assert torch.equal(hasty(3.0, 2.0), patient(torch.tensor(3.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)))


def test_noise_is_never_handed_out_twice():
    noise = Noise([7], (4, 64, 64))
    draws = torch.stack([noise.first(), noise(3.0, 2.0), noise(3.0, 2.0), noise(2.0, 1.0)]).flatten(1)
    assert (torch.corrcoef(draws) - torch.eye(4)).abs().max() < 0.05
    assert draws.std() == pytest.approx(1, abs=0.02)
