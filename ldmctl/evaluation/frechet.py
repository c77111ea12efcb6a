"""The Frechet distance of two sets of features, from running means and covariances: |m1 - m2|^2 + tr(A + B - 2 (A B)^1/2).

It is the squared 2-Wasserstein distance of the Gaussians N(m1, A) and N(m2, B)
(Dowson and Landau 1982), which Heusel et al. (arXiv:1706.08500) take of
Inception's features and call FID. With A = P P' and B = Q Q' the trace of the
root is the nuclear norm of P' Q, whose rounding is of the size of eps, where the
root of a product of covariances rounds at the root of eps and may turn complex.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ldmctl.errors import DataError
from ldmctl.evaluation.jackknife import groups_of, interval


@dataclass
class FeatureStatistics:
    """Mean and scatter of features that come in batches, float64: the same in any batches and any order, up to rounding."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))  # [D]
    scatter: Tensor = field(default_factory=lambda: torch.zeros(()))  # [D,D]: sum of the outer products of deviations

    def add(self, features: Tensor) -> FeatureStatistics:
        """Takes in features [B,D], of any float type and device; ones that are not finite, or of another D, are a DataError."""
        values = features.detach().to("cpu", torch.float64)
        if values.dim() != 2 or (self.count and values.shape[1] != len(self.mean)):
            before = f", as the {self.count:,} before them were [B,{len(self.mean)}]" if self.count else ""
            raise DataError(f"Features have the shape [B,D]{before}; these have {list(values.shape)}.")
        if not values.isfinite().all():
            raise DataError(f"{int((~values.isfinite().all(1)).sum()):,} of {len(values):,} pictures have features that are not finite.")
        if not len(values):
            return self
        mean = values.mean(0)
        centred = values - mean
        return self.merge(FeatureStatistics(len(values), mean, centred.T @ centred))

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Takes in the statistics of other features, such as another rank's (Chan, Golub and LeVeque 1979)."""
        if other.count:
            apart, count = other.mean - self.mean, self.count + other.count
            self.scatter = self.scatter + other.scatter + torch.outer(apart, apart) * (self.count * other.count / count)
            self.mean = self.mean + apart * (other.count / count)
            self.count = count
        return self

    @property
    def covariance(self) -> Tensor:
        """[D,D], with n - 1 in the denominator as numpy's and every published FID has it; fewer than two features are a DataError."""
        if self.count < 2:
            raise DataError(f"A covariance needs at least two pictures; there {'is one' if self.count else 'are none'}.")
        return self.scatter / (self.count - 1)

    def factor(self) -> Tensor:
        """P [D,r] with P P' = covariance, r the rank, which n pictures cannot make larger than n - 1."""
        values, vectors = torch.linalg.eigh(self.covariance)
        real = values > values[-1].clamp_min(0) * len(values) * torch.finfo(torch.float64).eps
        real[: max(0, len(values) - (self.count - 1))] = False  # ascending: the smallest are rounding
        return vectors[:, real] * values[real].sqrt()


def statistics_of(features: Tensor) -> FeatureStatistics:
    """Those of features [N,D]."""
    return FeatureStatistics().add(features)


def frechet_distance(one: FeatureStatistics, other: FeatureStatistics) -> float:
    """The distance, 0 or more, in squared units of the features; two sets of different D are a DataError."""
    if len(one.mean) != len(other.mean):
        raise DataError(f"Features of {len(one.mean)} numbers cannot be compared with features of {len(other.mean)}.")
    p, q = one.factor(), other.factor()
    return together(one, other, torch.linalg.svdvals(p.T @ q).sum())


def frechet_interval(features: Tensor, reference: FeatureStatistics) -> tuple[float, float, float]:
    """(distance, low, high) of features [N,D] to a reference, by leaving out a tenth of them at a time."""
    whole, group = statistics_of(features), groups_of(len(features))
    value, q, left = frechet_distance(whole, reference), reference.factor(), []
    for each in range(int(group.max()) + 1 if len(features) > 3 else 0):
        kept = statistics_of(features[group != each])
        # For how far it moves, the root of a product will do, and takes a seventh of the time.
        root = torch.linalg.eigvalsh(q.T @ kept.covariance @ q).clamp_min(0).sqrt().sum()
        left.append(together(kept, reference, root))
    return interval(value, left)


def together(one: FeatureStatistics, other: FeatureStatistics, root: Tensor) -> float:
    """The distance of which `root` is the trace of (A B)^1/2."""
    apart = (one.mean - other.mean).square().sum()
    return max(0.0, float(apart + one.covariance.trace() + other.covariance.trace() - 2 * root))
