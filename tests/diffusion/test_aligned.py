"""Levels at which a sampler errs least: costs of steps against their closed form, and the cheapest way against all ways."""

from itertools import combinations, pairwise

import pytest
import torch

from ldmctl.diffusion.aligned import bound_costs, cheapest_way, cost_of, integrated, path_costs

DEVIATION = 0.5


def ideal(x, sigma):
    """The best estimate for N(0, DEVIATION^2)."""
    return DEVIATION**2 / (DEVIATION**2 + sigma**2) * x


def grid(count):
    return torch.logspace(-1.5, 1, count, dtype=torch.float64)


def exact_distances(levels):
    """E |D(x_t, t) - D(x_s, s)|^2 of a Gaussian along its noising path: c^4 |1 / (c^2 + t^2) - 1 / (c^2 + s^2)|."""
    gain = DEVIATION**4 / (DEVIATION**2 + levels**2)
    return (gain[:, None] - gain[None]).abs()


def some_latents():
    return DEVIATION * torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_bound_is_taken_along_one_noising_path_of_each_latent():
    clean, levels = some_latents(), grid(6)
    found = bound_costs(ideal, clean, levels, torch.Generator().manual_seed(1)) / clean[0].numel()
    exact = integrated(exact_distances(levels), levels)
    steps = exact.isfinite()
    torch.testing.assert_close(found[steps], exact[steps], atol=1e-3, rtol=0.03)


def test_the_path_costs_what_one_long_step_errs_by():
    """A Gaussian's x(t) is x(s) sqrt((c^2 + t^2) / (c^2 + s^2)), and Euler's step is a factor, too."""
    levels = grid(300)
    found = path_costs(ideal, some_latents()[:12], levels, torch.Generator().manual_seed(1))
    for low, high in ((0, 299), (100, 200), (50, 290)):
        t, s = levels[low].item(), levels[high].item()
        gain = DEVIATION**2 / (DEVIATION**2 + s**2)
        off = abs(((DEVIATION**2 + t**2) / (DEVIATION**2 + s**2)) ** 0.5 - (gain + (1 - gain) * t / s))
        size = (DEVIATION**2 + s**2) ** 0.5  # of x there, root mean square
        assert found[low, high].item() == pytest.approx(off * size / (1 + t**2) ** 0.5, rel=0.06)
    assert found[200, 100] == torch.inf


def test_the_cost_of_a_step_is_the_integral_that_it_should_be():
    """The integral of (a / (c^2 + t^2) - a / (c^2 + s^2)) / t^3 from t0 to s, by a much finer rule."""
    levels = grid(400)
    costs = integrated(exact_distances(levels), levels)
    for low, high in ((0, 399), (100, 200), (50, 390)):
        t = torch.logspace(levels[low].log10().item(), levels[high].log10().item(), 200_001, dtype=torch.float64)
        gain = DEVIATION**4 / (DEVIATION**2 + t**2)
        exact = torch.trapezoid((gain - gain[-1]) / t**3, t)
        assert costs[low, high].item() == pytest.approx(exact.item(), rel=2e-3)
    assert costs[200, 100] == torch.inf and costs[100, 100] == torch.inf


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_cheapest_way_is_the_cheapest_of_all_ways(steps):
    levels = grid(9)
    costs = integrated(exact_distances(levels), levels)
    ways = [(8, *reversed(between)) for between in combinations(range(1, 8), steps - 1)]
    total = lambda way: sum(costs[low, high].item() for high, low in zip(way, (*way[1:], 0), strict=True))
    found = cheapest_way(costs, steps)
    assert total(found) == pytest.approx(min(map(total, ways)))
    assert found[0] == 8 and len(found) == steps
    assert cost_of(costs, levels, [levels[place].item() for place in found]) == pytest.approx(total(found))


def test_samplers_err_less_at_the_levels_found_than_at_even_ones():
    """Of the samples themselves: the deviation of what Euler's method makes of a Gaussian in eight steps from 10 to the lowest level."""
    levels = grid(120)
    costs = path_costs(ideal, some_latents()[:12], levels, torch.Generator().manual_seed(1))
    way = [levels[place].item() for place in cheapest_way(costs, 8)]

    def deviation(stops):
        spread = (DEVIATION**2 + stops[0] ** 2) ** 0.5
        for high, low in pairwise(stops):
            gain = DEVIATION**2 / (DEVIATION**2 + high**2)
            spread *= gain + (1 - gain) * low / high
        return spread

    lowest = levels[0].item()
    wanted = (DEVIATION**2 + lowest**2) ** 0.5
    even = torch.logspace(1, levels[0].log10().item(), 9, dtype=torch.float64).tolist()
    assert abs(deviation([*way, lowest]) - wanted) < 0.8 * abs(deviation(even) - wanted)
