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
ROWS, COLUMNS = 512, 8192  # queries and references of a matrix of distances that is in memory


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
    """(in features, in pixels from 0 to 1); with `others` of one set among itself, each picture's nearest other one."""
    pixels, turned, known = (each.flatten(1) for each in (queries.small, queries.small.flip(-1), references.small))
    levels = nearest(pixels, turned, known, others=others)
    return (
        nearest(queries.features, queries.mirrored, references.features, others=others),
        Nearest(levels.distance / 255, levels.index, levels.mirrored),
    )


def nearest(plain: Tensor, mirrored: Tensor, references: Tensor, *, others: bool = False) -> Nearest:
    """Of queries [N,D], and the same mirrored, among references [M,D]; Euclidean, and exactly 0 for a copy."""
    (straight, first), (turned, second) = (search(each, references, others=others) for each in (plain, mirrored))
    flipped = turned < straight
    return Nearest(torch.minimum(straight, turned), torch.where(flipped, second, first), flipped)


def search(queries: Tensor, references: Tensor, *, others: bool = False, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """(distance [N] float32, index [N]) of the nearest reference [M,D] of each query [N,D], which with `others` is not itself.

    Of numbers of any type; only a part of the references is float32 at a time.
    """
    best, index = torch.full((len(queries),), torch.inf), torch.zeros(len(queries), dtype=torch.long)
    for start in range(0, len(references), COLUMNS):
        known = references[start : start + COLUMNS].float()
        squares = known.square().sum(1)
        for first in range(0, len(queries), rows):
            here = slice(first, first + rows)
            score = torch.addmm(squares, queries[here].float(), known.T, alpha=-2)
            if others:
                score[torch.arange(first, first + len(score))[:, None] == torch.arange(start, start + len(known))] = torch.inf
            least, place = score.min(1)
            closer = least < best[here]
            best[here] = torch.where(closer, least, best[here])
            index[here] = torch.where(closer, place + start, index[here])
    gaps = (part.float() - references[place].float() for part, place in zip(queries.split(rows), index.split(rows), strict=True))
    return torch.cat([gap.square().sum(1).sqrt() for gap in gaps]), index


def _bounds(ordinary: tuple[Nearest, Nearest]) -> tuple[float, float]:
    low, high = (_quantile(each.distance, QUANTILE) for each in ordinary)
    return low, high


def _medians(ordinary: tuple[Nearest, Nearest]) -> tuple[float, float]:
    low, high = (each.distance.median().item() for each in ordinary)
    return low, high


def _quantile(values: Tensor, share: float) -> float:
    """The value below which this share lies; of any number of values, where torch.quantile takes 16 million at most."""
    return values.sort().values[int(share * (len(values) - 1))].item()
