"""The levels at which a sampler of first order errs least, for one's own network.

A step from the level s holds on to the clean latent D(x_s, s) that it found there. The network is asked once at every level of a fine
grid, which gives the cost of every step there could be, and the cheapest way of so many steps follows exactly. Two costs:

- `path`: along the deterministic path down the grid, how far one long step ends from where the many short ones do, as much of it as
  arrives at the end (a sum of local errors, as in arXiv:2405.11326).
- `bound`: align your steps (arXiv:2404.14507, eq. 7): along a noising path of a latent, the integral over the t of a step of
  E |D(x_t, t) - D(x_s, s)|^2 / t^3, which adds up to a bound of the divergence between data and what a stochastic sampler makes.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]


def path_costs(denoise: Denoise, clean: Tensor, grid: Tensor, random: torch.Generator) -> Tensor:
    """The mean over latents `clean` [B,c,h,w] of what a step from level s to level t errs by at the end, [M,M] at [t,s], float64.

    Latents are noised to the top of the rising `grid` [M] with noise of the CPU's `random` and go down it again.
    """
    levels = grid.tolist()
    x = clean + torch.randn(clean.shape, generator=random).to(clean) * levels[-1]
    said = []
    for high, low in pairwise([*reversed(levels), 0.0]):
        found = denoise(x, high)
        x = found + (x - found) * (low / high)
        said.append(found.flatten(1).to("cpu", torch.float64))
    off = torch.stack([_long_steps(estimates, grid) for estimates in torch.stack(said[::-1], 1)]).mean(0)
    arriving = grid / (1 + grid**2).sqrt()  # the rest of the way shrinks it by that, for latents of deviation 1
    return torch.where(_downwards(off), off * arriving[:, None], torch.inf)


def _long_steps(estimates: Tensor, grid: Tensor) -> Tensor:
    """How far, root mean square and over t, a step from s to t that holds on to estimates[s] ends from many short ones, [M,M] at [t,s].

    Both are integrals of an estimate over 1 / level; the norm of their difference follows from inner products.
    """
    inverse = 1 / grid
    pieces = estimates[1:] * (inverse[:-1] - inverse[1:])[:, None]
    walked = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])  # the integral from the lowest level up to each
    squares, mixed, held = walked @ walked.T, walked @ estimates.T, estimates.square().sum(1)
    own, width = squares.diagonal(), inverse[:, None] - inverse[None]
    gap = own[:, None] + own[None] - 2 * squares  # |walked[s] - walked[t]|^2
    along = mixed.diagonal()[None] - mixed  # its inner product with estimates[s]
    return ((gap - 2 * width * along + width**2 * held[None]).clamp(min=0) / estimates.shape[1]).sqrt()


def bound_costs(denoise: Denoise, clean: Tensor, grid: Tensor, random: torch.Generator) -> Tensor:
    """The mean over latents `clean` [B,c,h,w] of what a step from level s to level t adds to the bound, [M,M] at [t,s], float64.

    Latents are noised along one path each, up through the rising `grid` [M], with noise of the CPU's `random`.
    """
    x, below, said = clean, 0.0, []
    for level in grid.tolist():
        x = x + torch.randn(clean.shape, generator=random).to(clean) * (level**2 - below**2) ** 0.5
        said.append(denoise(x, level).flatten(1).to("cpu", torch.float64))
        below = level
    estimates = torch.stack(said, 1)  # [B,M,D]
    products = (estimates @ estimates.mT).mean(0)
    squares = products.diagonal()
    return integrated((squares[:, None] + squares[None] - 2 * products).clamp(min=0), grid)


def integrated(distances: Tensor, grid: Tensor) -> Tensor:
    """The integral of E |D_t - D_s|^2 / t^3 over each step, [M,M] at [t,s], by the trapezoid rule in ln(level); infinite upwards."""
    integrand = distances / grid[:, None] ** 2  # dt / t^3 is d ln(t) / t^2
    pieces = (integrand[1:] + integrand[:-1]) / 2 * grid.log().diff()[:, None]
    upto = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])  # from the lowest level up to each
    costs = upto.diagonal()[None] - upto
    return torch.where(_downwards(costs), costs, torch.inf)


def _downwards(costs: Tensor) -> Tensor:
    """Which [t,s] are steps down the rising grid."""
    return torch.ones_like(costs).triu(1) > 0


def cheapest_way(costs: Tensor, steps: int) -> list[int]:
    """Where on the grid a way of so many steps from its highest level to its lowest begins each of them, so that they cost least."""
    best = torch.full_like(costs[0], torch.inf)
    best[-1] = 0
    came = []
    for _ in range(steps):
        best, begun = (costs + best[None]).min(1)
        came.append(begun)
    way = [0]
    for places in reversed(came):
        way.append(int(places[way[-1]]))
    return way[:0:-1]


def cost_of(costs: Tensor, grid: Tensor, levels: Sequence[float]) -> float:
    """The cost of falling levels, each taken for the nearest of the grid, whose lowest is where the last step ends."""
    logs = grid.log()
    places = [int((logs - torch.tensor(level, dtype=torch.float64).log()).abs().argmin()) for level in levels if level > 0]
    way = sorted({0, *places, len(grid) - 1}, reverse=True)
    return sum(float(costs[low, high]) for high, low in pairwise(way))
