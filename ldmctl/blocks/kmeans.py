"""k-means: centres of a cloud of points, seeded far apart (k-means++, Arthur and Vassilvitskii 2007), then moved to the means of what is theirs."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ldmctl.blocks.nearest import nearest_codes
from ldmctl.blocks.shares import exactly

ROUNDS = 10  # of moving the centres


class Clusters(NamedTuple):
    """Centres of points, and how many points are nearest to each."""

    centres: Tensor  # [K,c]
    sizes: Tensor  # int64 [K]


@torch.no_grad()
def k_means(points: Tensor, count: int, generator: Generator, *, rounds: int = ROUNDS, unit_length: bool = False) -> Clusters:
    """points [N,c] -> `count` clusters; some centres are equal where points are. The generator lives on the CPU.

    With `unit_length`, points have norm 1 and so do the centres (spherical k-means).
    """
    centres = _seeds(points, count, generator)
    for _ in range(rounds):
        nearest = nearest_codes(points, centres)
        sizes = nearest.bincount(minlength=count)
        means = (sums_of(points, nearest, count) / sizes.clamp(min=1)[:, None]).to(points.dtype)
        centres = torch.where((sizes > 0)[:, None], F.normalize(means, dim=1) if unit_length else means, centres)
    return Clusters(centres, nearest_codes(points, centres).bincount(minlength=count))


def sums_of(points: Tensor, nearest: Tensor, count: int) -> Tensor:
    """points [N,c] and for each the index [N] of its centre -> [count,c], the sum of the points of each centre, in float64 where the device has it."""
    exact = exactly(points)
    return exact.new_zeros(count, points.shape[1]).index_add_(0, nearest, exact)


def _seeds(points: Tensor, count: int, generator: Generator) -> Tensor:
    """`count` of the points, drawn with chances that grow with the squared distance to those before: one by one, later an eighth more at a time."""
    draws = torch.rand(count, generator=generator).to(points.device)
    seeds = points[(draws[:1] * len(points)).long().clamp(max=len(points) - 1)]
    apart = points.new_full((len(points),), torch.inf)
    newest = seeds
    while len(seeds) < count:
        apart = torch.minimum(apart, (points - newest[nearest_codes(points, newest)]).square().sum(1))
        chances = apart.cumsum(0)
        some = draws[len(seeds) : len(seeds) + max(1, len(seeds) // 8)]
        newest = points[torch.searchsorted(chances, some * chances[-1]).clamp(max=len(points) - 1)]
        seeds = torch.cat([seeds, newest])
    return seeds
