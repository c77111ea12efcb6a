"""Precision and recall, density and coverage: whether samples look like real pictures, and whether all real pictures are among them.

A picture's ball reaches to its k-th nearest neighbour in its own set.
  precision  share of samples in the ball of some real picture            (Kynkaanniemi et al., arXiv:1904.06991, eq. 2)
  recall     share of real pictures in the ball of some sample            (the same with the sets exchanged)
  density    in how many real balls a sample lies, over k                 (Naeem et al., arXiv:2002.09797, eq. 5)
  coverage   share of real pictures with a sample in their ball           (eq. 6)
A generator of one picture has a recall near 0, whatever its precision.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ldmctl.errors import DataError
from ldmctl.evaluation.jackknife import groups_of, interval

NEAREST = 5  # k, as Naeem et al. chose; Kynkaanniemi et al. took 3
ROWS = 1024  # of a matrix of distances that are in memory together
Interval = tuple[float, float, float]


class Neighbourhood(NamedTuple):
    """Each (value, low, high)."""

    precision: Interval
    recall: Interval
    density: Interval
    coverage: Interval


def neighbourhood(samples: Tensor, reals: Tensor, *, k: int = NEAREST) -> Neighbourhood:
    """The four measures of features [N,D] and [M,D]; k or fewer on either side are a DataError."""
    if min(len(samples), len(reals)) <= k:
        raise DataError(f"Neighbours need more than {k} pictures on each side; there are {len(samples)} and {len(reals)}.")
    centre = reals.double().mean(0)
    samples, reals = samples.double() - centre, reals.double() - centre
    group = groups_of(len(samples))
    number = int(group.max()) + 1
    own, radius = radii_without(samples, group, k), radii(reals, k)
    nearest = torch.full((len(reals), number), torch.inf, dtype=torch.float64)
    inside, recalled = torch.zeros(len(samples)), torch.zeros(len(reals), number + 1, dtype=torch.bool)
    for first in range(0, len(reals), ROWS):
        rows = slice(first, first + ROWS)
        distance = distances(reals[rows], samples)
        inside += (distance <= radius[rows, None]).sum(0)
        for each in range(number):
            nearest[rows, each] = distance[:, group == each].amin(1)
        for each in range(number + 1):
            kept = group != each
            recalled[rows, each] = (distance[:, kept] <= own[kept, each]).any(1)
    covered = nearest <= radius[:, None]

    def of_samples(values: Tensor) -> Interval:
        return interval(values.mean().item(), [values[group != each].mean().item() for each in range(number)])

    without = [covered[:, torch.arange(number) != each].any(1).float().mean().item() for each in range(number)]
    recall = recalled.float().mean(0).tolist()
    return Neighbourhood(
        share(of_samples((inside > 0).float()), len(samples)),
        share(interval(recall[number], recall[:number]), len(samples)),
        of_samples(inside / k),
        share(interval(covered.any(1).float().mean().item(), without), len(samples)),
    )


def share(found: Interval, count: int) -> Interval:
    """The interval of what lies between 0 and 1, seen in so many pictures; none stays none.

    What was seen in none of n pictures is true of up to 3 / n of all (the rule of three, Hanley and Lippman-Hand, 1983), and likewise for all.
    """
    value, low, high = found
    if math.isnan(low):
        return found
    rare = min(1.0, 3 / count)
    return value, min(max(low, 0.0), 1 - rare if value >= 1 else 1.0), max(min(high, 1.0), rare if value <= 0 else 0.0)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, [N,D] and [M,D] -> [N,M]. Of float64 around 0, where a copy has the root of rounding and not of float32's."""
    return torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")


def radii(features: Tensor, k: int) -> Tensor:
    """[N]: the distance of each to its k-th nearest neighbour."""
    return torch.cat([distances(part, features).kthvalue(k + 1, dim=1).values for part in features.split(ROWS)])


def radii_without(features: Tensor, group: Tensor, k: int) -> Tensor:
    """[N,G+1]: `radii` among the features that are in another group than g, and in the last column among all."""
    number = int(group.max()) + 1
    found = []
    for part in features.split(ROWS):
        distance = distances(part, features)
        kept = [group != each for each in range(number + 1)]
        found.append(torch.stack([distance[:, each].kthvalue(min(k + 1, int(each.sum())), dim=1).values for each in kept], 1))
    return torch.cat(found)
