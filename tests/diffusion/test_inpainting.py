"""Inpainting, tried where the answer is known: Gaussian data with an ideal denoiser, a part of which is given."""

import math
from itertools import pairwise

import pytest
import torch

from ldmctl import registry
from ldmctl.config.editing import Painting
from ldmctl.config.presets import compose
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.beginning import METHODS
from ldmctl.diffusion.denoise import Noise
from ldmctl.diffusion.editing import Corrected
from ldmctl.diffusion.inpainting import ALONE, Cells, Repaint, free_cells, takes_steps_alone
from ldmctl.diffusion.spacing import levels as spaced

# Two numbers of deviation 1 that go together, the first known to be 1.5: the second is 1.350 +- 0.436.
COVARIANCE = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
KNOWN, FREE = torch.tensor([1.5, 0.0]).view(1, 2, 1, 1), Cells(*[torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)] * 2)
COUNT = 20_000


def levels(steps, low=0.02, high=80.0):
    """Karras et al. 2022, eq. 5."""
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.cat([(high ** (1 / 7) + share * (low ** (1 / 7) - high ** (1 / 7))) ** 7, share.new_zeros(1)])


def ideal(x, sigma, covariance=COVARIANCE):
    """The mean of clean data given x: C (C + sigma^2)^-1 x."""
    gain = covariance @ torch.linalg.inv(covariance + float(sigma) ** 2 * torch.eye(len(covariance)))
    return torch.einsum("ij,bjhw->bihw", gain, x)


def sampler(name, **keys):
    return registry.build("sampler", plugin_config("sampler", {"type": name, **keys}))


def painted(method, steps=50, sampled_by="ddim", repeats=5, sigmas=None):
    """(mean, deviation) of the free number."""
    generator, sigmas = torch.Generator().manual_seed(0), levels(steps) if sigmas is None else sigmas
    x = torch.randn(COUNT, 2, 1, 1, generator=generator) * math.sqrt(1 + sigmas[0].item() ** 2)
    noise = lambda *step: torch.randn(COUNT, 2, 1, 1, generator=generator)
    if method == "repaint":
        free = Repaint(KNOWN, FREE, repeats, sampler(sampled_by))(ideal, x, sigmas, noise)[:, 1]
    else:
        free = sampler(sampled_by)(Corrected(ideal, [METHODS[method](KNOWN, FREE)]), x, sigmas, noise)[:, 1]
    return free.mean().item(), free.std().item()


def near(found, share=0.08):
    mean, deviation = found
    return abs(mean / 1.350 - 1) < share and abs(deviation / 0.436 - 1) < share


def test_the_default_method_finds_what_the_known_part_says_of_the_rest():
    assert near(painted(Painting().method))


@pytest.mark.parametrize("schedule", [plugin.name for plugin in registry.plugins("schedule")])
def test_so_do_the_defaults_of_the_command_under_every_schedule(schedule):
    asked, _ = compose(Sample)
    _, sigmas = spaced(registry.build("schedule", plugin_config("schedule", {"type": schedule})), asked.steps, asked.spacing)
    assert near(painted(asked.painting.method, sampled_by=asked.sampler.type, sigmas=sigmas), share=0.05)


def test_repaint_takes_a_sampler_that_it_can_repeat_unless_one_is_named():
    painting = ["start=a.png", "mask=m.png", "painting.method=repaint"]
    assert compose(Sample, overrides=painting)[0].sampler.type == "ddpm"
    assert compose(Sample, overrides=[*painting, "sampler.variance=large"])[0].sampler.variance == "large"
    assert compose(Sample, overrides=[*painting, "sampler=heun"])[0].sampler.type == "heun"
    assert compose(Sample, overrides=[*painting[:2], "painting.feather=2"])[0].sampler.type == compose(Sample)[0].sampler.type


def test_it_does_so_with_any_sampler_and_the_mean_already_in_few_steps():
    assert near(painted("pigdm", steps=200, sampled_by="ddpm"))
    for sampled_by in ("ddim", "ddpm"):
        assert abs(painted("pigdm", steps=10, sampled_by=sampled_by)[0] / 1.350 - 1) < 0.04


@pytest.mark.parametrize("name", ["deis", "dpmpp-2m", "heun", "lms", "unipc"])
def test_it_does_so_with_every_sampler_that_draws_no_noise(name):
    mean, deviation = painted("pigdm", steps=20, sampled_by=name)
    assert abs(mean / 1.350 - 1) < 0.04 and abs(deviation / 0.436 - 1) < 0.08


@pytest.mark.parametrize(
    ("name", "few", "many"),
    [
        ("ddpm", 0.34, 0.39),
        ("euler-ancestral", 0.34, 0.39),
        ("dpmpp-2s-ancestral", 0.41, 0.43),
        ("dpmpp-2m-sde", 0.47, 0.44),
        ("dpmpp-3m-sde", 0.48, 0.44),
    ],
)
def test_with_samplers_that_draw_noise_the_mean_is_right_and_the_deviation_needs_more_steps(name, few, many):
    """As docs/guides/editing.md says: 0.436 is right."""
    for steps, deviation in ((20, few), (50, many)):
        assert painted("pigdm", steps=steps, sampled_by=name) == (pytest.approx(1.350, rel=0.04), pytest.approx(deviation, abs=0.015))


def test_putting_the_known_part_back_learns_half_of_it_at_any_number_of_steps():
    for steps in (50, 200):
        mean, deviation = painted("blend", steps=steps)
        assert 0.6 < mean < 0.7 and 0.65 < deviation < 0.75, "the answer is 1.350 +- 0.436"


def test_repaint_comes_near_with_many_evaluations():
    assert painted("repaint", repeats=1, sampled_by="ddpm")[0] < 1.0
    mean, deviation = painted("repaint", repeats=10, sampled_by="ddpm")
    assert abs(mean - 1.31) < 0.04 and abs(deviation - 0.40) < 0.03, "491 evaluations"


@pytest.mark.parametrize(("name", "mean", "deviation"), [("ddim", 1.27, 0.43), ("heun", 1.27, 0.46), ("dpmpp-2s-ancestral", 1.30, 0.44)])
def test_repaint_comes_as_near_along_deterministic_steps_and_others(name, mean, deviation):
    """What is stirred in on the way up is as good as what DDPM adds on the way down: a step goes from noised data to noised data."""
    once, often = painted("repaint", repeats=1, sampled_by=name), painted("repaint", repeats=10, sampled_by=name)
    assert once[0] < 0.92 and often == (pytest.approx(mean, abs=0.03), pytest.approx(deviation, abs=0.02))
    assert near(often), "within 8 % of 1.350 +- 0.436"


def test_repaint_takes_the_steps_of_ddpm_as_it_always_did():
    x, sigmas = torch.randn(3, 2, 1, 1, generator=torch.Generator().manual_seed(1)) * 80, levels(7)
    noise = Noise([1, 2, 3], (2, 1, 1))

    def as_published(x):
        for high, low in pairwise(sigmas.tolist()):
            for turn in range(turns := 4 if low > 0 else 1):
                step = (torch.tensor(high, dtype=torch.float64), torch.tensor(low, dtype=torch.float64))
                clean = ideal(x, high)
                x_next, known = clean + (x - clean) * (low / high) ** 2, KNOWN
                if low > 0:
                    x_next = x_next + noise(*step) * math.sqrt(low**2 * (1 - (low / high) ** 2))
                    known = known + noise(*step) * low
                x = torch.where(FREE.at(low) > 0, x_next, known)
                x = x + noise(*step) * math.sqrt(high**2 - low**2) if turn + 1 < turns else x
        return x

    assert torch.equal(Repaint(KNOWN, FREE, 4, sampler("ddpm"))(ideal, x, sigmas, Noise([1, 2, 3], (2, 1, 1))), as_published(x))


def test_which_samplers_take_their_steps_alone():
    found = {plugin.name for plugin in registry.plugins("sampler") if takes_steps_alone(sampler(plugin.name))}
    assert found == set(ALONE)
    assert not takes_steps_alone(sampler("euler", churn=2)), "it stirs in as much as there are steps"
    assert takes_steps_alone(sampler("ddim", eta=0.5)) and takes_steps_alone(sampler("ddpm", variance="large"))


def test_of_many_known_numbers_each_says_its_part():
    """A chain of 16 numbers, each 0.9 of its neighbour, of which 11 are known: the error is a third of blending's, over 12 draws."""
    place = torch.arange(16)
    covariance = 0.9 ** (place[:, None] - place[None]).abs()
    free = torch.zeros(16)
    free[5:10] = 1
    known, hidden = free == 0, free == 1
    gain = covariance[hidden][:, known] @ torch.linalg.inv(covariance[known][:, known])
    errors = {"pigdm": 0.0, "blend": 0.0}
    for draw in range(12):
        generator = torch.Generator().manual_seed(draw)
        whole = torch.linalg.cholesky(covariance) @ torch.randn(16, generator=generator)
        for method in errors:
            correct = METHODS[method](whole.view(1, 16, 1, 1), Cells(free.view(1, 16, 1, 1), free.view(1, 16, 1, 1)))
            denoise = Corrected(lambda x, sigma: ideal(x, sigma, covariance), [correct])
            made = sampler("ddim")(denoise, 80 * torch.randn(500, 16, 1, 1, generator=generator), levels(40), None)
            errors[method] += (made[:, hidden, 0, 0].mean(0) - gain @ whole[known]).square().mean().item() / 12
            assert (made[:, known, 0, 0] - whole[known]).abs().max() < 1e-5, "what is known is as it was"
    assert errors["pigdm"] ** 0.5 < 0.2 and errors["blend"] ** 0.5 > 0.4


# -- masks in the latent ------------------------------------------------------------------------------


def test_one_free_pixel_frees_its_cell_and_in_the_end_the_cells_beside_it():
    for row, column in ((8, 8), (15, 15), (11, 9)):
        free = torch.zeros(32, 40, dtype=torch.bool)
        free[row, column] = True
        cells = free_cells(free, 8)
        assert cells.free.shape == (1, 1, 4, 5) and cells.free.sum() == 1 and cells.free[0, 0, 1, 1] == 1
        assert cells.grown.sum() == 9 and cells.grown[0, 0, :3, :3].all()
        assert torch.equal(cells.at(80.0), cells.free) and torch.equal(cells.at(0.05), cells.grown)


def test_a_cell_of_one_pixel_frees_no_other():
    free = torch.zeros(4, 4, dtype=torch.bool)
    free[1, 2] = True
    assert torch.equal(free_cells(free, 1).grown[0, 0] > 0, free)


def test_sides_that_are_no_multiple_of_a_cell_are_padded_as_pictures_are():
    free = torch.zeros(9, 9, dtype=torch.bool)
    free[8, 8] = True
    cells = free_cells(free, 4)
    assert torch.equal(cells.free[0, 0], torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 1]]))
    assert torch.equal(cells.grown[0, 0], torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 1, 1]]))
