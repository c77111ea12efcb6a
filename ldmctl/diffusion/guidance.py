"""Guidance: from what a network says with its condition, away from what a weaker one says.

The weaker one is the same network without the condition (arXiv:2207.12598) or with another one, or another
network with the same condition (arXiv:2406.02507). A sampler knows nothing of it: how far, and whether at all, is
decided at the noise level of each evaluation.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from ldmctl.errors import ConfigError


class Manner(Protocol):
    """How guidance is applied; the `guiding` section of a config has this shape."""

    @property
    def method(self) -> str: ...
    @property
    def interval(self) -> tuple[float, float] | None: ...
    @property
    def rescale(self) -> float: ...
    @property
    def eta(self) -> float: ...
    @property
    def norm(self) -> float | None: ...
    @property
    def momentum(self) -> float: ...


class Guidance:
    """How far to go, `weight`: 0 is the weaker estimate, 1 the better one. One serves one batch, since momentum remembers.

    Above the level `still` nothing moves yet, which is CFG-Zero*'s beginning.
    """

    def __init__(self, weight: float, manner: Manner | None = None, *, still: float = float("inf")):
        self.weight, self.manner, self.still = weight, manner, still
        self.method = manner.method if manner else "plain"
        self.rescale = manner.rescale if manner else 0.0
        self.update: Tensor | None = None

    def at(self, level: float) -> float:
        """The weight at a noise level sigma / alpha: 1 outside the interval, whose upper end belongs to it (arXiv:2404.07724)."""
        interval = self.manner.interval if self.manner else None
        return self.weight if interval is None or interval[0] < level <= interval[1] else 1.0

    def outputs(self, better: Tensor, weaker: Tensor) -> Tensor:
        """What stands for the network's two outputs [B,c,h,w]; they may be noise, velocities or clean estimates."""
        weaker = along(better, weaker) * weaker if self.method == "zero-star" else weaker  # arXiv:2503.18886, eq. 7
        return weaker + self.weight * (better - weaker)

    def projected(self, better: Tensor, weaker: Tensor) -> Tensor:
        """APG (arXiv:2410.02416, alg. 1) of two clean estimates [B,c,h,w]: what points along the better one, and only saturates, counts `eta`."""
        assert self.manner is not None
        update = better - weaker
        if self.manner.momentum and self.update is not None:
            update = update + self.manner.momentum * self.update
        self.update = update.detach()
        if self.manner.norm is not None:
            length = update.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            update = update * (self.manner.norm / length.clamp(min=1e-12)).clamp(max=1)
        parallel = along(update, better) * better
        return better + (self.weight - 1) * (update - parallel + self.manner.eta * parallel)

    def rescaled(self, clean: Tensor, better: Tensor) -> Tensor:
        """The guided estimate, brought back by `rescale` to the deviation that the better one has in each picture (arXiv:2305.08891, eq. 15 and 16)."""
        ratio = deviation(better) / deviation(clean).clamp(min=1e-12)
        return clean * (self.rescale * ratio + 1 - self.rescale)


def refuse_momentum(momentum: float, sampler: Any) -> None:
    """A ConfigError for momentum with a sampler that may take a step back: it would remember that step, and those of other pictures."""
    if momentum and tries_steps(sampler):
        raise ConfigError(
            f"guiding.momentum={momentum:g} needs a sampler that takes each step once, and the one asked for tries steps until they fit: "
            "take sampler=heun or another, or leave momentum away."
        )


def tries_steps(sampler: Any) -> bool:
    """Whether a sampler may take a step back, so that what it asked before may have been for other pictures of the batch."""
    return hasattr(sampler, "evaluations") and sampler.evaluations(1) is None


def refuse_method(method: str, prediction: str) -> None:
    """A ConfigError for a method that makes no sense of what the network predicts."""
    if method == "zero-star" and prediction != "flow":
        raise ConfigError(
            f"guiding.method=zero-star scales velocities, and this model was trained with prediction={prediction}. Take apg, or plain."
        )


def along(one: Tensor, other: Tensor) -> Tensor:
    """How much of `other` [B,c,h,w] is in `one`, by least squares in each picture, [B,1,1,1]; 0 where it is nothing."""
    dims = tuple(range(1, one.ndim))
    size = (other * other).sum(dims, keepdim=True)
    return torch.where(size > 0, (one * other).sum(dims, keepdim=True) / size.clamp(min=1e-30), 0.0)


def deviation(clean: Tensor) -> Tensor:
    """Of the numbers of each picture, [B,1,1,1]."""
    return clean.flatten(1).std(dim=1).view(-1, 1, 1, 1)
