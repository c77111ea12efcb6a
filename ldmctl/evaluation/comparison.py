"""How far a set of pictures is from a reference, by every measure at once."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from ldmctl.errors import DataError
from ldmctl.evaluation.frechet import FeatureStatistics, frechet_interval, statistics_of
from ldmctl.evaluation.kernels import bandwidth, gaussian, kernel_distance, polynomial
from ldmctl.evaluation.neighbours import NEAREST, neighbourhood
from ldmctl.pictures.batches import evenly

Interval = tuple[float, float, float]
DISTANCES = ("frechet_distance", "kernel_distance", "gaussian_kernel_distance")
SHARES = ("precision", "recall", "density", "coverage")


class Reference:
    """Real pictures' features [M,D], and what is computed of them once."""

    def __init__(self, features: Tensor):
        self.features = features

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Mean and covariance."""
        return statistics_of(self.features)

    @cached_property
    def bandwidth(self) -> float:
        """Of the Gaussian kernel."""
        return bandwidth(self.features)


def evenly_of(features: Tensor, count: int) -> Tensor:
    """At most so many of features [M,D]: neighbours are counted among as many references as samples, where two sets of the same
    distribution have a coverage near 1."""
    return features[evenly(len(features), count)]


def refuse_few(count: int, references: int) -> None:
    """A DataError for fewer pictures than neighbours can be counted among."""
    if min(count, references) <= NEAREST:
        raise DataError(
            f"{count:,} {'picture' if count == 1 else 'pictures'} cannot be compared with {references:,}: more than {NEAREST} are needed on each side."
        )


def compare(features: Tensor, reference: Reference) -> dict[str, Interval]:
    """(value, low, high) of each measure, by name, of features [N,D]; too few of either are a DataError."""
    refuse_few(len(features), len(reference.features))
    y = reference.features
    near = neighbourhood(features, evenly_of(y, len(features)))
    return {
        "frechet_distance": frechet_interval(features, reference.statistics),
        "kernel_distance": kernel_distance(features, y, polynomial),
        "gaussian_kernel_distance": kernel_distance(features, y, gaussian(reference.bandwidth)),
        **near._asdict(),
    }
