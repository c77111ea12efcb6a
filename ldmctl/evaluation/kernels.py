"""Kernel distances of two sets of features: the squared maximum mean discrepancy, without bias at any number of pictures.

    MMD^2 = mean of k(x, x') over x != x'  +  mean of k(y, y') over y != y'  -  2 mean of k(x, y)

Gretton et al. 2012, lemma 6. With the polynomial kernel it is what Binkowski et
al. (arXiv:1801.01401) take of Inception's features and call KID, with the
Gaussian one what Jayasumana et al. (arXiv:2401.09603) take of CLIP's and call
CMMD. Sets of the same distribution have 0 on average, and less than 0 as often.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ldmctl.errors import DataError
from ldmctl.evaluation.jackknife import groups_of, interval
from ldmctl.pictures.batches import evenly

Kernel = Callable[[Tensor, Tensor], Tensor]
ROWS = 1024  # of a matrix of kernels that are in memory together
PAIRED = 1000  # references whose distances to each other decide a bandwidth


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(x y / D + 1)^3 of features [N,D] and [M,D] -> [N,M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(deviation: float) -> Kernel:
    """exp(-|x - y|^2 / (2 deviation^2))."""
    return lambda x, y: torch.exp(-torch.cdist(x, y).square() / (2 * deviation**2))


def bandwidth(reference: Tensor) -> float:
    """The median distance of references [M,D] to each other, which has the features' own scale: the usual deviation of a Gaussian kernel."""
    few = reference[evenly(len(reference), PAIRED)].double()
    median = torch.pdist(few).median().item() if len(few) > 1 else 0.0
    return median or 1.0


def kernel_distance(features: Tensor, reference: Tensor, kernel: Kernel) -> tuple[float, float, float]:
    """(MMD^2, low, high) of features [N,D] and references [M,D], in float64; fewer than two of either are a DataError."""
    x, y = features.double(), reference.double()
    if min(len(x), len(y)) < 2:
        raise DataError(f"A kernel distance needs two pictures on each side; there are {len(x)} and {len(y)}.")
    group = groups_of(len(x))
    count = torch.bincount(group).double()
    within = sums(x, x, kernel, group, group) - torch.diag(diagonal(x, kernel, group))
    across = sums(x, y, kernel, group, torch.zeros(len(y), dtype=torch.long))[:, 0]
    others = sums(y, y, kernel, *[torch.zeros(len(y), dtype=torch.long)] * 2).sum() - diagonal(y, kernel, group[:1] * 0).sum()
    real = others / (len(y) * (len(y) - 1))

    def of(kept: Tensor) -> float:
        number = count[kept].sum()
        own = within[kept][:, kept].sum() / (number * (number - 1))
        return float(own + real - 2 * across[kept].sum() / (number * len(y)))

    every = torch.arange(len(count))
    left = [of(every[every != each]) for each in range(len(count))] if len(x) > 3 else []
    return interval(of(every), left)


def sums(x: Tensor, y: Tensor, kernel: Kernel, rows: Tensor, columns: Tensor) -> Tensor:
    """[G,H]: the kernels of all pairs, summed over pairs of groups `rows` [N] and `columns` [M]."""
    out = torch.zeros(int(rows.max()) + 1, int(columns.max()) + 1, dtype=x.dtype)
    member = torch.nn.functional.one_hot(columns).to(x.dtype)
    for part, where in zip(x.split(ROWS), rows.split(ROWS), strict=True):
        out.index_add_(0, where, kernel(part, y) @ member)
    return out


def diagonal(x: Tensor, kernel: Kernel, group: Tensor) -> Tensor:
    """[G]: k(x, x), summed over groups; one group where `group` has one element."""
    own = torch.cat([torch.diagonal(kernel(part, part)) for part in x.split(ROWS)])
    return torch.zeros(int(group.max()) + 1, dtype=x.dtype).index_add_(0, group.expand(len(x)), own)
