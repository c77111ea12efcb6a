"""Samplers against published numbers, against each other, and against an equation whose solution is known."""

import math

import pytest
import torch

from ldmctl import registry
from ldmctl.blocks import fresh_noise, level_integrals, log_level_integrals, phi_2
from ldmctl.diffusion.denoise import Noise
from ldmctl.diffusion.spacing import CEILING, start

NAMES = [plugin.name for plugin in registry.plugins("sampler")]
STOCHASTIC = ["ddpm", "dpmpp-2m-sde", "dpmpp-2s-ancestral", "dpmpp-3m-sde", "euler-ancestral"]


def made(name, **options):
    plugin = registry.load("sampler", name)
    return plugin(plugin.Config(type=name, **options))


def karras(steps, lowest, highest, rho=7.0):
    places = torch.linspace(0, 1, steps, dtype=torch.float64)
    return (highest ** (1 / rho) + places * (lowest ** (1 / rho) - highest ** (1 / rho))) ** rho


def to_zero(levels):
    return torch.cat([levels, levels.new_zeros(1)])


def one_gaussian(x, sigma):
    """The best estimate for N(0, 0.5^2)."""
    return 0.25 * x / (0.25 + float(sigma) ** 2)


def two_gaussians(x, sigma):
    """The best estimate where half of the data is N(1, 0.25^2) and half N(-1, 0.25^2)."""
    square = float(sigma) ** 2
    return (0.0625 * x + square * torch.tanh(x / (square + 0.0625))) / (square + 0.0625)


def same(value):
    return lambda sigma, sigma_next: torch.full((1, 1, 1, 4), value, dtype=torch.float64)


# -- numbers of k-diffusion's own code, run in float64 on karras(10, .002, 80) --------------------------

NUMBERS = [
    ("euler", {}, None, 0.00456516, 0.909423, -0.605660, 0.284616),
    ("ddim", {}, None, 0.00456516, 0.909423, -0.605660, 0.284616),
    ("euler-ancestral", {"eta": 0}, None, 0.00456516, 0.909423, -0.605660, 0.284616),
    ("heun", {}, None, 0.00762248, 1.173160, -0.924235, 0.584895),
    ("lms", {}, None, 0.00516575, 0.990934, -0.704938, 0.342611),
    ("lms", {"order": 3}, None, 0.00511468, 0.984534, -0.695855, 0.337362),
    ("dpmpp-2m", {}, None, 0.00724233, 1.268676, -0.997828, 0.522691),
    ("dpmpp-2m-sde", {"eta": 0}, None, 0.00724233, 1.268676, -0.997828, 0.522691),
    ("unipc", {"corrected": False}, None, 0.00724233, 1.268676, -0.997828, 0.522691),
    ("dpmpp-2m-sde", {"eta": 0, "solver": "heun"}, None, 0.00846481, 1.429927, -1.173208, 0.628943),
    ("dpmpp-3m-sde", {"eta": 0}, None, 0.00813573, 1.024531, -1.001511, 0.684116),
    ("dpmpp-2s-ancestral", {"eta": 0}, None, 0.00576821, 1.012705, -0.738732, 0.511732),
    ("unipc", {}, None, 0.00743667, 1.269196, -1.029925, 0.549651),
    ("unipc", {"order": 3}, None, 0.00927176, 1.110776, -1.300771, 0.849591),
    ("euler-ancestral", {}, 1.0, 0.59856845, 1.220738, 1.218474, 1.219186),
    ("dpmpp-2s-ancestral", {}, 1.0, 0.82285111, 1.365189, 1.362575, 1.363398),
    ("dpmpp-2m-sde", {}, 1.0, 1.05799196, 1.654650, 1.657746, 1.656771),
    ("dpmpp-3m-sde", {}, 1.0, 1.83039394, 1.259364, 1.257154, 1.257795),
    ("euler-ancestral", {}, 0.0, 0.00003906, 0.134914, -0.050077, 0.012800),
    ("dpmpp-2m-sde", {}, 0.0, 0.00003906, 0.334803, -0.139529, 0.037729),
]


@pytest.mark.parametrize(("name", "options", "noise", "lone", "far", "below", "near"), NUMBERS, ids=str)
def test_ten_steps_end_where_the_published_code_ends(name, options, noise, lone, far, below, near):
    sigmas, sampler = to_zero(karras(10, 0.002, 80)), made(name, **options)
    noise = None if noise is None else same(noise)
    x = torch.tensor([1.0, 60, -20, 5], dtype=torch.float64).reshape(1, 1, 1, 4)
    assert sampler(one_gaussian, x, sigmas, noise).flatten()[0].item() == pytest.approx(lone, abs=5e-9)
    found = sampler(two_gaussians, x, sigmas, noise).flatten()[1:].tolist()
    assert found == pytest.approx([far, below, near], abs=5e-7)


# -- identities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "its", "other", "others"),
    [
        ("unipc", {"corrected": False}, "dpmpp-2m", {}),
        ("dpmpp-2m-sde", {"eta": 0}, "dpmpp-2m", {}),
        ("euler", {}, "ddim", {}),
        ("euler-ancestral", {"eta": 0.6}, "ddim", {"eta": 0.6}),
        ("euler-ancestral", {}, "ddpm", {"variance": "small"}),
        ("lms", {"order": 1}, "ddim", {}),
        ("deis", {"order": 1}, "ddim", {}),
        ("unipc", {"order": 1, "corrected": False}, "ddim", {}),
    ],
)
@pytest.mark.parametrize("steps", [2, 3, 10])
def test_what_is_one_formula_under_two_names_is_one_path(one, its, other, others, steps):
    sigmas = to_zero(torch.cat([torch.tensor([CEILING]).double(), karras(steps - 1, 0.01, 20)]))
    x = start(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), sigmas)
    ends = [made(name, **options)(two_gaussians, x, sigmas, Noise([3, 4], (3, 4, 4))) for name, options in ((one, its), (other, others))]
    torch.testing.assert_close(*ends, atol=1e-11, rtol=1e-11)


# -- orders ---------------------------------------------------------------------------------------------


ORDERS = [  # error ~ steps^-order from 100 to 400 steps
    ("euler", {}, 1),
    ("ddim", {}, 1),
    ("euler-ancestral", {"eta": 0}, 1),
    ("lms", {"order": 1}, 1),
    ("heun", {}, 2),
    ("lms", {"order": 2}, 2),
    ("deis", {"order": 2}, 2),
    ("dpmpp-2m", {}, 2),
    ("dpmpp-2m-sde", {"eta": 0}, 2),
    ("dpmpp-2m-sde", {"eta": 0, "solver": "heun"}, 2),
    ("dpmpp-2s-ancestral", {"eta": 0}, 2),
    ("unipc", {"order": 2, "corrected": False}, 2),
    ("unipc", {"order": 1}, 2),  # the correction adds an order
]
HIGHER = [  # once under way; the first steps are of lower order, which is what is left of the error in the end
    ("dpmpp-3m-sde", {"eta": 0}, 2.5),
    ("unipc", {"order": 2}, 2.8),
    ("deis", {"order": 3}, 2.8),
    ("lms", {"order": 3}, 2.8),
    ("unipc", {"order": 3}, 2.8),
    ("lms", {"order": 4}, 3.7),
]


def solution(x, high, low):
    """x at `low` of two Gaussians, by very many steps of fourth order in ln(sigma)."""
    slope = lambda x, u: x - two_gaussians(x, math.exp(u))
    count = 3000
    h = math.log(low / high) / count
    for index in range(count):
        u = math.log(high) + index * h
        first = slope(x, u)
        second = slope(x + first * h / 2, u + h / 2)
        third = slope(x + second * h / 2, u + h / 2)
        x = x + (first + 2 * second + 2 * third + slope(x + third * h, u + h)) * (h / 6)
    return x


@pytest.fixture(scope="module")
def known():
    x = torch.tensor([12.0, -3.0, 5.0, 0.7], dtype=torch.float64).reshape(1, 1, 1, 4)
    return x, solution(x, 10.0, 0.1)


def reached(sampler, x, levels):
    """x as the sampler brings it to the last of these levels, before the step to clean that follows."""
    seen = []

    def watched(x, sigma):
        if sigma == levels[-1]:
            seen.append(x)
        return two_gaussians(x, sigma)

    sampler(watched, x, to_zero(levels), None)
    return seen[-1]


def slope(name, options, known, steps):
    """-d ln(error) / d ln(steps)."""
    x, wanted = known
    errors = [(reached(made(name, **options), x, karras(count + 1, 0.1, 10)) - wanted).abs().max().item() for count in steps]
    return math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])


@pytest.mark.parametrize(("name", "options", "order"), ORDERS, ids=str)
def test_twice_the_steps_divide_the_error_by_two_to_the_order(name, options, order, known):
    assert slope(name, options, known, [100, 400]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("name", "options", "least"), HIGHER, ids=str)
def test_higher_orders_are_higher(name, options, least, known):
    assert slope(name, options, known, [50, 200]) > least


# -- noise ----------------------------------------------------------------------------------------------


def moments_of(sampler, steps, mean, deviation):
    """(mean, deviation) of what a sampler makes of N(mean, deviation^2), exactly: it is linear in its noise, so each draw is followed alone."""
    sigmas = to_zero(torch.cat([torch.tensor([CEILING]).double(), karras(steps - 1, 0.0005, 80)]))
    rows = 2 * steps + 2
    drawn = iter(range(2, rows))

    def noise(sigma, sigma_next):
        return torch.nn.functional.one_hot(torch.tensor(next(drawn)), rows).double()[:, None, None, None]

    def ideal(x, sigma):
        return mean + deviation**2 / (deviation**2 + float(sigma) ** 2) * (x - mean)

    first = torch.zeros(rows, 1, 1, 1).double()
    first[1] = 1
    found = sampler(ideal, start(first, sigmas), sigmas, noise).flatten()
    return found[0].item(), (found[1:] - found[0]).square().sum().sqrt().item()


@pytest.mark.parametrize("deviation", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("ddpm", {}, 0.03),
        ("ddpm", {"variance": "large"}, 0.08),
        ("ddim", {"eta": 0.5}, 0.03),
        ("euler-ancestral", {}, 0.03),
        ("euler", {"churn": 40}, 0.03),
        ("dpmpp-2s-ancestral", {}, 0.002),
        ("dpmpp-2m-sde", {}, 0.002),
        ("dpmpp-2m-sde", {"solver": "heun"}, 0.002),
        ("dpmpp-3m-sde", {}, 0.002),
    ],
    ids=str,
)
def test_samplers_that_add_noise_keep_the_mean_and_deviation_of_a_gaussian(name, options, tolerance, deviation):
    """In 500 steps; with half as many the samplers of first order are twice as far off, those of second order more than that."""
    error = {}
    for steps in (250, 500):
        mean, found = moments_of(made(name, **options), steps, 0.3, deviation)
        assert mean == pytest.approx(0.3, abs=0.01)
        error[steps] = abs(found - deviation)
    assert error[500] < tolerance * deviation
    assert error[500] < 1e-4 or error[250] / error[500] > 1.8, error


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("ddpm", {}, 0.03),
        ("ddim", {"eta": 0.5}, 0.03),
        ("euler-ancestral", {}, 0.03),
        ("euler", {"churn": 40}, 0.03),
        ("dpmpp-2s-ancestral", {}, 0.002),
        ("dpmpp-2m-sde", {}, 0.002),
        ("dpmpp-3m-sde", {}, 0.002),
    ],
    ids=str,
)
def test_samplers_that_add_noise_keep_the_covariance_of_numbers_that_go_together(name, options, tolerance):
    """Of two that go together by 0.9, exactly: a sampler is linear in its noise, so each draw of each number is followed alone."""
    covariance, steps = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64), 500
    sigmas = to_zero(torch.cat([torch.tensor([CEILING]).double(), karras(steps - 1, 0.0005, 80)]))
    rows = 2 * (2 * steps + 1)
    drawn = iter(range(2, rows, 2))

    def alone(row):
        each = torch.zeros(rows, 2, 1, 1, dtype=torch.float64)
        each[row, 0] = each[row + 1, 1] = 1
        return each

    def ideal(x, sigma):
        gain = covariance @ torch.linalg.inv(covariance + float(sigma) ** 2 * torch.eye(2, dtype=torch.float64))
        return torch.einsum("ij,bjhw->bihw", gain, x)

    found = made(name, **options)(ideal, start(alone(0), sigmas), sigmas, lambda *_: alone(next(drawn)))[:, :, 0, 0]
    torch.testing.assert_close(found.T @ found, covariance, atol=2 * tolerance, rtol=0)


def test_churn_adds_noise_between_its_levels_and_nowhere_else():
    asked = []

    def noise(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        return torch.zeros(1, 1, 1, 1, dtype=torch.float64)

    sigmas = to_zero(torch.tensor([80.0, 40, 20, 10, 5, 1]).double())
    made("euler", churn=3, churn_from=5, churn_to=40)(one_gaussian, torch.ones(1, 1, 1, 1).double(), sigmas, noise)
    gain = math.sqrt(2)  # 3 / 6 is more than the paper allows
    assert asked == [(level, pytest.approx(level * gain)) for level in (40, 20, 10, 5)]


# -- the first level, the last one, and other dtypes ----------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("name", NAMES)
def test_pure_noise_to_clean_is_finite_and_ends_among_the_data(name, steps, dtype):
    """From the level that stands for pure noise, along the trailing levels of `cosine`, where the first step goes very far."""
    t = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    sigmas = to_zero(torch.tan(t * math.pi / 2).abs().clamp(max=CEILING))
    noise = Noise(range(4), (2, 8, 8))
    denoise = lambda x, sigma: two_gaussians(x.double(), sigma).to(dtype)
    drawn = lambda sigma, sigma_next: noise(sigma, sigma_next).to(dtype)
    found = made(name)(denoise, start(noise.first().to(dtype), sigmas), sigmas, drawn)
    assert found.dtype == dtype and found.isfinite().all()
    assert found.abs().max() < 4 and (steps < 10 or 0.6 < found.double().std() < 1.5)


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_says_how_often_it_looks(name):
    sampler, calls = made(name), []
    count = getattr(sampler, "evaluations", lambda steps: steps)
    sampler(
        lambda x, sigma: calls.append(float(sigma)) or one_gaussian(x, sigma),
        torch.ones(1, 1, 2, 2),
        to_zero(karras(9, 0.01, 10)),
        Noise([0], (1, 2, 2)),
    )
    assert count(9) in (len(calls), None) and (name == "adaptive") == (count(9) is None)
    assert all(0 < level <= CEILING for level in calls)


# -- adaptive -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tolerance", "most"), [(0.1, 0.1), (0.01, 0.02), (0.001, 0.003)])
def test_an_adaptive_sampler_keeps_its_tolerance(tolerance, most, known):
    calls = []
    count = lambda x, sigma: calls.append(1) or two_gaussians(x, sigma)
    found = made("adaptive", tolerance=tolerance, halvings=10)(count, known[0], torch.tensor([10.0, 0.1]).double(), None)
    assert (found - known[1]).abs().max() < most


def test_an_adaptive_sampler_asks_at_the_levels_themselves():
    """A first level a hair below the highest would no longer be pure noise, from which nothing can be divided out."""
    calls = []
    ask = lambda x, sigma: calls.append(float(sigma)) or two_gaussians(x, sigma)
    made("adaptive")(ask, torch.full((1, 1, 2, 2), 60.0), torch.tensor([CEILING, 33.3, 0.7, 0.0], dtype=torch.float64), None)
    assert {CEILING, 33.3, 0.7} <= set(calls) and max(calls) == CEILING


def test_an_adaptive_sampler_looks_more_often_the_less_it_may_err():
    counts = []
    for tolerance in (1.0, 0.1, 0.01):
        calls = []
        made("adaptive", tolerance=tolerance)(
            lambda x, sigma, calls=calls: calls.append(1) or two_gaussians(x, sigma),
            torch.full((1, 1, 2, 2), 60.0),
            to_zero(karras(8, 0.01, 80)),
            None,
        )
        counts.append(len(calls))
    assert counts[0] == 17 < counts[1] < counts[2]


# -- coefficients ---------------------------------------------------------------------------------------


def test_noise_is_kept_and_drawn_in_shares_whose_squares_add_up():
    for eta in (0.0, 0.3, 1.0):
        kept, fresh = fresh_noise(5.0, 3.0, eta)
        assert kept**2 + fresh**2 == pytest.approx(9)
        assert fresh == pytest.approx(eta * 3 * 0.8)
    assert fresh_noise(5.0, 0.0, 1.0) == (0, 0)


def test_weights_of_slopes_integrate_polynomials_exactly():
    nodes, low = [3.0, 5.0, 9.0], 2.0
    for power in range(3):
        area = (low ** (power + 1) - nodes[0] ** (power + 1)) / (power + 1)
        assert sum(weight * node**power for weight, node in zip(level_integrals(nodes, low), nodes, strict=True)) == pytest.approx(area)
    assert level_integrals([3.0], low) == pytest.approx([-1.0])


def test_weights_of_noise_integrate_polynomials_of_the_logarithm_exactly():
    nodes, low = [3.0, 5.0, 9.0], 2.0
    integrals = {0: lambda s: s, 1: lambda s: s * (math.log(s) - 1), 2: lambda s: s * (math.log(s) ** 2 - 2 * math.log(s) + 2)}
    for power, integral in integrals.items():
        found = sum(weight * math.log(node) ** power for weight, node in zip(log_level_integrals(nodes, low), nodes, strict=True))
        assert found == pytest.approx(integral(low) - integral(nodes[0]))


def test_phi_2_is_half_the_step_at_first_and_all_of_the_change_in_the_end():
    assert phi_2(1e-3) == pytest.approx(0.5e-3, rel=1e-3)
    assert phi_2(1e6) == pytest.approx(1, abs=1e-5)
