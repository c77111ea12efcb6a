"""Whether samples are copies: how near the nearest training picture is, beside how near it is to pictures that were held out.

A sample counts as copied where it is nearer to a training picture than all but
one in a hundred held-out pictures are, in features and in pixels, mirrored or not.
Of a run that has learned the pictures' distribution one in a hundred samples is,
or fewer; of a run that repeats its data nearly all. How long that takes grows with
the number of pictures, while good samples come after a time that does not
(Bonnaire et al., arXiv:2505.17638).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldmctl.evaluation.extraction import Seen

QUANTILE = 0.01  # of held-out pictures that are as near by chance
ROWS = 512  # queries of a matrix of distances that is in memory


@dataclass(frozen=True)
class Nearest:
    """Of each query its nearest reference, mirrored or not."""

    distance: Tensor  # [N] float32
    index: Tensor  # [N]
    mirrored: Tensor  # bool [N]


@dataclass(frozen=True)
class Copies:
    """Which queries are nearer to something than `QUANTILE` of ordinary pictures are, in features and in pixels."""

    features: Nearest
    pixels: Nearest
    bounds: tuple[float, float]  # of features and of pixels
    ordinary: tuple[float, float]  # medians of ordinary pictures

    @property
    def copied(self) -> Tensor:
        """bool [N]."""
        return (self.features.distance <= self.bounds[0]) & (self.pixels.distance <= self.bounds[1])

    @property
    def share(self) -> float:
        """Of the queries."""
        return self.copied.float().mean().item()

    @property
    def order(self) -> Tensor:
        """The queries, the nearest first: by the larger of both distances relative to the bounds."""
        tiny = torch.finfo(torch.float32).tiny
        relative = [each.distance / max(bound, tiny) for each, bound in zip((self.features, self.pixels), self.bounds, strict=True)]
        return torch.maximum(*relative).argsort(stable=True)


def copies(samples: Seen, train: Seen, held: Seen | None) -> Copies:
    """Of samples among training pictures. Without held-out pictures, training pictures stand for them, each among all others."""
    ordinary = both(held, train) if held is not None and len(held) else both(train, train, others=True)
    found = both(samples, train)
    return Copies(*found, _bounds(ordinary), _medians(ordinary))


def duplicates(samples: Seen, real: Seen) -> Copies:
    """Of samples among each other, beside as many real pictures among each other."""
    ordinary = both(real, real, others=True)
    return Copies(*both(samples, samples, others=True), _bounds(ordinary), _medians(ordinary))


def both(queries: Seen, references: Seen, *, others: bool = False) -> tuple[Nearest, Nearest]:
    """(in features, in pixels); with `others` of one set among itself, each picture's nearest other one."""
    pixels, known = (each.small.flatten(1).float() / 255 for each in (queries, references))
    turned = queries.small.flip(-1).flatten(1).float() / 255
    return (
        nearest(queries.features, queries.mirrored, references.features, others=others),
        nearest(pixels, turned, known, others=others),
    )


def nearest(plain: Tensor, mirrored: Tensor, references: Tensor, *, others: bool = False) -> Nearest:
    """Of queries [N,D], and the same mirrored, among references [M,D]; Euclidean, and exactly 0 for a copy."""
    sides = [search(each, references, others=others) for each in (plain, mirrored)]
    distance = torch.stack([each[0] for each in sides])
    best = distance.argmin(0)
    index = torch.stack([each[1] for each in sides])
    return Nearest(distance.amin(0), index.gather(0, best[None])[0], best == 1)


def search(queries: Tensor, references: Tensor, *, others: bool = False, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """(distance [N], index [N]) of the nearest reference [M,D] of each query [N,D], which with `others` is not itself."""
    squares, found = references.square().sum(1), []
    for first in range(0, len(queries), rows):
        part = queries[first : first + rows]
        score = torch.addmm(squares, part, references.T, alpha=-2)
        if others:
            own = torch.arange(first, first + len(part))
            score[torch.arange(len(part)), own] = torch.inf
        found.append(score.argmin(1))
    index = torch.cat(found)
    return (queries - references[index]).square().sum(1).sqrt(), index


def _bounds(ordinary: tuple[Nearest, Nearest]) -> tuple[float, float]:
    low, high = (_quantile(each.distance, QUANTILE) for each in ordinary)
    return low, high


def _medians(ordinary: tuple[Nearest, Nearest]) -> tuple[float, float]:
    low, high = (each.distance.median().item() for each in ordinary)
    return low, high


def _quantile(values: Tensor, share: float) -> float:
    """The value below which this share lies; of any number of values, where torch.quantile takes 16 million at most."""
    return values.sort().values[int(share * (len(values) - 1))].item()
