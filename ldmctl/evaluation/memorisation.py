"""Whether samples are copies: how near the nearest training picture is, beside how near it is to pictures that were held out.

A sample counts as copied where it is nearer to a training picture than all but
one in a hundred held-out pictures are, in features and in pixels, mirrored or not.
Of a run that has learned the pictures' distribution one in a hundred samples is,
or fewer; of a run that repeats its data nearly all. Fewer than a hundred pictures
have no such bound: the nearest of 20 is nearer than one sample in 20. How long that takes grows with
the number of pictures, while good samples come after a time that does not
(Bonnaire et al., arXiv:2505.17638).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldmctl.evaluation.extraction import Seen
from ldmctl.pictures.batches import evenly

QUANTILE = 0.01  # of held-out pictures that are as near by chance
ENOUGH = 100  # ordinary pictures, of which one is that share
ORDINARY = 10_000  # training pictures at most whose nearest other one is looked for, evenly
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
    kind: str  # which pictures are the ordinary ones
    count: int  # how many they are

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
    """Of samples among training pictures. Where fewer than `ENOUGH` are held out, training pictures stand for them, each among all others."""
    found = both(samples, train)
    if held is not None and len(held) >= ENOUGH:
        return _beside(found, both(held, train), "held-out pictures")
    places = evenly(len(train), ORDINARY)
    return _beside(found, both(train.take(places), train, own=places), "training pictures to each other")


def duplicates(samples: Seen, real: Seen) -> Copies:
    """Of samples among each other, beside as many real pictures among each other: in a denser set all are nearer."""
    mine, theirs = (torch.arange(len(each)) for each in (samples, real))
    return _beside(both(samples, samples, own=mine), both(real, real, own=theirs), "real pictures")


def both(queries: Seen, references: Seen, *, own: Tensor | None = None) -> tuple[Nearest, Nearest]:
    """(in features, in pixels from 0 to 1); with `own` [N], where each query stands among the references, its nearest other one."""
    pixels, turned, known = (each.flatten(1) for each in (queries.small, queries.small.flip(-1), references.small))
    levels = nearest(pixels, turned, known, own=own)
    return (
        nearest(queries.features, queries.mirrored, references.features, own=own),
        Nearest(levels.distance / 255, levels.index, levels.mirrored),
    )


def nearest(plain: Tensor, mirrored: Tensor, references: Tensor, *, own: Tensor | None = None) -> Nearest:
    """Of queries [N,D], and the same mirrored, among references [M,D]; Euclidean, and exactly 0 for a copy."""
    (straight, first), (turned, second) = (search(each, references, own=own) for each in (plain, mirrored))
    flipped = turned < straight
    return Nearest(torch.minimum(straight, turned), torch.where(flipped, second, first), flipped)


def search(queries: Tensor, references: Tensor, *, own: Tensor | None = None, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """(distance [N] float32, index [N]) of the nearest reference [M,D] of each query [N,D], which is not the one at its `own` place [N].

    Of numbers of any type; only a part of the references is float32 at a time.
    """
    best, index = torch.full((len(queries),), torch.inf), torch.zeros(len(queries), dtype=torch.long)
    for start in range(0, len(references), COLUMNS):
        known = references[start : start + COLUMNS].float()
        squares = known.square().sum(1)
        for first in range(0, len(queries), rows):
            here = slice(first, first + rows)
            score = torch.addmm(squares, queries[here].float(), known.T, alpha=-2)
            if own is not None:
                score[own[here, None] == torch.arange(start, start + len(known))] = torch.inf
            least, place = score.min(1)
            closer = least < best[here]
            best[here] = torch.where(closer, least, best[here])
            index[here] = torch.where(closer, place + start, index[here])
    gaps = (part.float() - references[place].float() for part, place in zip(queries.split(rows), index.split(rows), strict=True))
    return torch.cat([gap.square().sum(1).sqrt() for gap in gaps]), index


def _beside(found: tuple[Nearest, Nearest], ordinary: tuple[Nearest, Nearest], kind: str) -> Copies:
    return Copies(*found, _bounds(ordinary), _medians(ordinary), kind, len(ordinary[0].distance))


def _bounds(ordinary: tuple[Nearest, Nearest]) -> tuple[float, float]:
    low, high = (_quantile(each.distance, QUANTILE) for each in ordinary)
    return low, high


def _medians(ordinary: tuple[Nearest, Nearest]) -> tuple[float, float]:
    low, high = (each.distance.median().item() for each in ordinary)
    return low, high


def _quantile(values: Tensor, share: float) -> float:
    """The value at or below which this share of other draws lies, that of rank share * (n + 1); of any number of values, where torch.quantile
    takes 16 million at most. The least of all where they are too few for one."""
    return values.sort().values[max(0, int(share * (len(values) + 1) + 1e-9) - 1)].item()
