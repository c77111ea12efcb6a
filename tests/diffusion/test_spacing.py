"""Where samplers stop: published levels, tables, and every sampler under every schedule with every spacing."""

import json

import numpy as np
import pytest
import torch

from ldmctl import registry
from ldmctl.config.levels import NAMES, Spacing
from ldmctl.config.presets import compose
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.denoise import Denoise, Noise
from ldmctl.diffusion.spacing import CEILING, NOISE, levels, start
from ldmctl.diffusion.spacing_rules import beta_quantile, beta_share
from ldmctl.errors import ConfigError

SCHEDULES = [plugin.name for plugin in registry.plugins("schedule")]
SAMPLERS = [plugin.name for plugin in registry.plugins("sampler")]
AYS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0]  # of Stable Diffusion, arXiv:2404.14507
MEAN, DEVIATION = 0.3, 0.5


def made(kind, name, **options):
    plugin = registry.load(kind, name)
    return plugin(plugin.Config(type=name, **options))


def composed(*words):
    return compose(Sample, overrides=list(words))[0].spacing


# -- published levels ------------------------------------------------------------------------------------


def test_beta_is_a_quantile_of_time_and_not_of_the_level():
    """The levels of ComfyUI for Stable Diffusion; interpolating sigma instead gives 13.93 in the second place."""
    _, found = levels(made("schedule", "scaled-linear"), 10, "beta")
    assert found.tolist() == pytest.approx([14.61, 11.54, 7.37, 4.37, 2.62, 1.62, 1.03, 0.655, 0.396, 0.199, 0], rel=7e-3)


def test_shift_of_flow_moves_its_times_towards_noise():
    times, sigmas = levels(made("schedule", "flow"), 10, Spacing(type="trailing", shift=3))
    assert times.tolist() == pytest.approx([1, 0.9643, 0.9231, 0.875, 0.8182, 0.75, 0.6667, 0.5625, 0.4286, 0.25], abs=5e-5)
    _, plain = levels(made("schedule", "flow"), 10, "trailing")
    torch.testing.assert_close(sigmas[1:], 3 * plain[1:], atol=0, rtol=1e-12)  # the level t / (1 - t) is three times as high


def test_karras_of_flow_is_the_published_one():
    times, _ = levels(made("schedule", "flow"), 5, Spacing(type="karras", lowest=0.01, highest=200))
    assert times.tolist() == pytest.approx([0.99502486, 0.97874546, 0.87748843, 0.36049718, 0.00990099], abs=1e-6)


def test_karras_and_exponential_are_those_of_k_diffusion():
    karras = [80, 42.415189, 21.108677, 9.723201, 4.066124, 1.501742, 0.469979, 0.116639, 0.020435, 0.002, 0]
    exponential = [80, 24.6462, 7.59294, 2.33921, 0.72066, 0.22202, 0.0684, 0.02107, 0.00649, 0.002, 0]
    for name, wanted in {"karras": karras, "exponential": exponential, "log-snr": exponential}.items():
        _, found = levels(made("schedule", "cosine"), 10, Spacing(type=name, lowest=0.002, highest=80))
        assert found.tolist() == pytest.approx(wanted, rel=5e-4)


@pytest.mark.parametrize(("name", "kind"), [("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas")])
def test_spacings_by_level_are_those_of_diffusers(name, kind):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **{kind: True})
    theirs.set_timesteps(17)
    _, ours = levels(made("schedule", "scaled-linear"), 17, name)
    torch.testing.assert_close(ours, theirs.sigmas.double(), atol=1e-5, rtol=1e-4)


def test_uniform_and_quadratic_are_even_in_time_and_in_its_root():
    times, _ = levels(made("schedule", "cosine"), 5, "uniform")
    torch.testing.assert_close(times, torch.tensor([1, 0.8, 0.6, 0.4, 0.2]).double())
    times, _ = levels(made("schedule", "linear"), 5, "quadratic")
    roots = times.sqrt()
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(4))
    assert (times[0], times[-1]) == (1, pytest.approx(1 / 1000))


@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.6), (1.0, 1.0), (2.0, 0.5), (0.3, 4.0)])
def test_quantiles_of_beta_are_found_back(alpha, beta):
    for share in (0.01, 0.2, 0.5, 0.9, 0.999):
        assert beta_share(beta_quantile(share, alpha, beta), alpha, beta) == pytest.approx(share, abs=1e-9)
    assert beta_quantile(1.0, alpha, beta) == pytest.approx(1, abs=1e-3)
    assert beta_share(0.3, 1, 1) == pytest.approx(0.3)
    assert beta_share(0.3, 2, 1) == pytest.approx(0.09)
    assert beta_share(0.5, 0.6, 0.6) == pytest.approx(0.5)


# -- tables ----------------------------------------------------------------------------------------------


def test_a_table_is_visited_as_it_is_written():
    _, found = levels(made("schedule", "scaled-linear"), 10, AYS)
    assert found.tolist() == pytest.approx(AYS)


def test_for_other_numbers_of_steps_the_logarithms_of_a_table_are_interpolated():
    _, found = levels(made("schedule", "cosine"), 5, [16, 4, 1])
    assert found.tolist() == pytest.approx([16, 8, 4, 2, 1, 0])
    _, found = levels(made("schedule", "cosine"), 1, [16, 4, 1])
    assert found.tolist() == pytest.approx([16, 0])


def test_a_file_is_read_at_once_so_that_settings_hold_the_levels(tmp_path):
    (tmp_path / "plain.json").write_text("[5, 2, 1, 0]")
    (tmp_path / "made.json").write_text(json.dumps({"levels": [5, 2, 1], "by": "ldmctl spacing"}))
    for name, wanted in {"plain.json": (5, 2, 1, 0), "made.json": (5, 2, 1)}.items():
        found = composed(f"spacing={tmp_path / name}")
        assert (found.type, found.table) == ("table", wanted)
        assert found.model_dump(mode="json") == {"type": "table", "table": list(wanted)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["spacing=[5,2,3]"], "goes from 2 to 3"),
        (["spacing=[5,5]"], "falls from each level to the next"),
        (["spacing=[]"], "at least one level"),
        (["spacing=[3,-1]"], "not negative"),
        (["spacing.table=[-3]"], "at least one level"),
        (["spacing=nothing.json"], "nothing.json cannot be read"),
        (["spacing=trailng"], "Did you mean 'trailing'"),
        (["spacing=karras", "spacing.rho=0.005"], "greater than or equal to 0.05"),
        (["spacing=karras", "spacing.shift=2"], "shift is of trailing and leading"),
        (["spacing=karras", "spacing.highest=1", "spacing.lowest=2"], "not above"),
        (["spacing.rho=3"], "rho is of karras, not of beta"),
        (["steps=0"], "greater than 0"),
    ],
)
def test_what_cannot_be_a_spacing_is_a_sentence(words, said):
    with pytest.raises(ConfigError, match=said):
        composed(*words)


@pytest.mark.parametrize(("content", "said"), [("levels: 3", "not JSON"), ('{"steps": 3}', "neither a list"), ("3", "neither a list")])
def test_a_file_that_holds_no_table_is_a_sentence(tmp_path, content, said):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ConfigError, match=said):
        composed(f"spacing={tmp_path / 'bad.json'}")


def test_levels_beyond_the_schedule_are_refused():
    with pytest.raises(ConfigError, match="which ends at 14"):
        levels(made("schedule", "scaled-linear"), 10, [80, 1, 0.1])
    with pytest.raises(ConfigError, match="cannot fall"):
        levels(made("schedule", "scaled-linear"), 10, Spacing(type="karras", lowest=20))


def test_a_spacing_is_written_as_short_as_it_was_asked():
    assert composed().model_dump(mode="json") == "beta"
    assert composed("spacing=karras", "spacing.rho=7").model_dump(mode="json") == "karras"
    assert composed("spacing=karras", "spacing.rho=5").model_dump(mode="json") == {"type": "karras", "rho": 5.0}
    for short in ("trailing", {"type": "karras", "rho": 5.0}, {"type": "table", "table": [3.0, 1.0]}):
        assert Spacing.model_validate(short).model_dump(mode="json") == short


# -- all of them -----------------------------------------------------------------------------------------


def spacing_named(name):
    return Spacing(type="table", table=(10, 3, 1, 0.3, 0.1, 0.02)) if name == "table" else Spacing(type=name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_spacing_falls_strictly_to_0_under_every_schedule(schedule, name):
    for steps in (1, 2, 7, 50, 300, 1000):
        times, sigmas = levels(made("schedule", schedule), steps, spacing_named(name))
        assert (len(times), len(sigmas)) == (steps, steps + 1)
        assert sigmas.isfinite().all() and (sigmas.diff() < 0).all() and sigmas[-1] == 0
        assert 0 < times[-1] <= times[0] <= 1
        assert name not in ("karras", "exponential") or sigmas[0] <= NOISE or sigmas[0] < CEILING / 10


def network_of(schedule, prediction="v"):
    """The best network for data from N(MEAN, DEVIATION^2), which looks its time up from what it is told."""
    grid = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    told_at = schedule.timestep(grid) if hasattr(schedule, "timestep") else 1000 * grid

    def network(x, told, condition):
        t = torch.from_numpy(np.interp(told[:1].double().numpy(), told_at.numpy(), grid.numpy()))
        alpha, sigma = schedule.marginal(t)
        clean = MEAN + alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2) * (x - alpha * MEAN)
        noise = (x - alpha * clean) / sigma
        said = {"v": alpha * noise - sigma * clean, "x0": clean, "eps": noise, "flow": noise - clean}
        return said[prediction].float()

    return network


QUICK = ("beta", "karras")
OTHERS = [name for name in NAMES if name not in QUICK]


@pytest.mark.parametrize(
    ("names", "prediction"), [*[(QUICK, said) for said in ("v", "x0", "eps", "flow")], pytest.param(OTHERS, "v", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_works_under_every_schedule_with_every_spacing(sampler, names, prediction):
    for schedule in (made("schedule", name) for name in SCHEDULES):
        denoise = Denoise(network_of(schedule, prediction), schedule, prediction)
        for name in names:
            _, sigmas = levels(schedule, 30, spacing_named(name))
            noise = Noise([3], (1, 32, 32))
            found = made("sampler", sampler)(denoise, start(noise.first(), sigmas), sigmas, noise)
            assert found.isfinite().all() and found.shape == (1, 1, 32, 32)
            # both end with a step that is several times as long as the one before, for which two estimates are few
            uneven = name in ("leading", "linspace")
            assert found.mean() == pytest.approx(MEAN, abs=0.06), name
            assert found.std() == pytest.approx(DEVIATION, abs=0.2 if uneven else 0.12), name


@pytest.mark.parametrize("lowest", [0.002, 0.0004])
@pytest.mark.parametrize("prediction", ["x0", "eps", "v", "flow"])
@pytest.mark.parametrize("name", ["edm", "linear"])
def test_levels_below_the_lowest_of_a_schedule_still_give_the_picture(name, prediction, lowest):
    schedule = made("schedule", name)
    _, sigmas = levels(schedule, 30, Spacing(type="karras", lowest=lowest, highest=80))
    noise, told = Noise([3], (1, 32, 32)), []

    def network(x, timestep, condition):
        told.append(timestep.item())
        return network_of(schedule, prediction)(x, timestep, condition)

    found = made("sampler", "ddim")(Denoise(network, schedule, prediction), start(noise.first(), sigmas), sigmas, noise)
    assert found.mean() == pytest.approx(MEAN, abs=0.06) and found.std() == pytest.approx(DEVIATION, abs=0.12)
    assert min(told) == 0  # the first step of betas, the time 0 of others


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_sampler_that_halves_steps_stays_within_the_schedule(name):
    schedule, asked = made("schedule", name), []
    denoise = Denoise(network_of(schedule), schedule, "v")

    def ask(x, sigma):
        asked.append(float(sigma))
        return denoise(x, sigma)

    ask.lowest = denoise.lowest
    for spacing in ("trailing", "linspace"):
        _, sigmas = levels(schedule, 30, spacing)
        noise = Noise([3], (1, 32, 32))
        made("sampler", "adaptive")(ask, start(noise.first(), sigmas), sigmas, noise)
    assert min(asked) >= denoise.lowest * (1 - 1e-9)


def test_a_table_of_one_level_is_refused_for_more_steps():
    schedule = made("schedule", "flow")
    assert levels(schedule, 1, [3.0])[1].tolist() == pytest.approx([3.0, 0.0])
    with pytest.raises(ConfigError, match="one level cannot be spread over 7 steps"):
        levels(schedule, 7, [3.0])
