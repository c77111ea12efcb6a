"""How often the codes of a codebook are used over a whole split."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class CodeUsage:
    """How often each of `size` codes is used over a split. One batch says little: the rarer codes are just not in it."""

    def __init__(self, size: int):
        self.counts = torch.zeros(size, dtype=torch.int64)

    def add(self, codes: Tensor) -> None:
        """Integers of any shape."""
        self.counts += torch.bincount(codes.detach().cpu().flatten().long(), minlength=len(self.counts))

    @property
    def size(self) -> int:
        """How many codes there are."""
        return len(self.counts)

    @property
    def places(self) -> int:
        """How many codes were written in all pictures together."""
        return int(self.counts.sum())

    @property
    def used(self) -> int:
        """How many codes occur at all."""
        return int((self.counts > 0).sum())

    @property
    def reachable(self) -> float:
        """How many codes would be expected to occur if all were equally frequent: fewer than there are when pictures are few."""
        return self.size * -math.expm1(self.places * math.log1p(-1 / self.size)) if self.size > 1 else 1.0

    @property
    def entropy(self) -> float:
        """Bits per code by how often each is used; log2(size) when all are used alike."""
        shares = self.counts[self.counts > 0].double() / max(self.places, 1)
        return -(shares * shares.log2()).sum().item() + 0.0

    @property
    def perplexity(self) -> float:
        """2 ** entropy: as many equally frequent codes would do."""
        return 2.0**self.entropy
