"""Whether a discriminator has anything to say: how far it is ahead of one that cannot tell.

A generator's loss keeps its norm when it is balanced against the others, however little the discriminator knows: one that is beaten
would be made louder and louder, until noise steers the autoencoder. So its weight falls with its advantage.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

BLIND = {"hinge": 1.0, "vanilla": math.log(2), "lsgan": 0.25}  # the lowest loss of a discriminator that says one number to all
SMOOTHING = 0.95  # of the average over steps


class Advantage(nn.Module):
    """1 - loss / blind loss, averaged over steps: 1 of a discriminator that is always right, 0 of one that says the same to all, less
    of one that is misled. A buffer, so that a run resumes with it; NaN until it was measured."""

    value: Tensor

    def __init__(self, kind: str):
        super().__init__()
        self.blind = BLIND[kind]
        self.register_buffer("value", torch.tensor(float("nan")))
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor, share: float = 1.0) -> None:
        """The discriminator's loss of a micro-batch, a scalar without penalties, and its share of this rank's batch."""
        self._losses.append(loss.detach() * share)

    @torch.no_grad()
    def after_step(self) -> None:
        """Takes in the step of all ranks. One that is not finite on any of them is passed over by all."""
        if not self._losses:
            return
        loss, self._losses = torch.stack(self._losses).sum(), []
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(loss)
            loss = loss / dist.get_world_size()
        measured = 1 - loss / self.blind
        renewed = torch.where(self.value.isnan(), measured, torch.lerp(measured, self.value, SMOOTHING))
        self.value.copy_(torch.where(measured.isfinite(), renewed, self.value))

    def said(self, loss: Tensor) -> Tensor:
        """What is reported of a micro-batch with this loss: the average before it, in the first step what that measures, a scalar."""
        return torch.where(self.value.isnan(), 1 - loss.detach() / self.blind, self.value)

    def heard(self, whole: float) -> Tensor:
        """The share of its weight that the discriminator gets, in [0, 1]: all of it from an advantage of `whole` on; 0 until it was measured."""
        return (self.value / whole).clamp(0, 1).nan_to_num(0.0)
