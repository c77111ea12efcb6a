"""How a network is told the time."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoids(timestep: Tensor, width: int) -> Tensor:
    """timestep [B] -> float32 [B,width]: cosines, then sines, of frequencies from 1 down to 1/10000 (Vaswani et al. 2017, section 3.5)."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=timestep.device) * (-math.log(10_000) / max(half, 1)))
    angles = timestep.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


class TimestepEmbedding(nn.Module):
    """A small network on the sinusoids of the time."""

    def __init__(self, width: int, out_width: int):
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, out_width)
        self.linear_2 = nn.Linear(out_width, out_width)

    def forward(self, timestep: Tensor) -> Tensor:
        """timestep [B], any real numbers of the order of 0 to 1000 -> [B,out_width]."""
        return self.linear_2(F.silu(self.linear_1(sinusoids(timestep, self.width).to(self.linear_1.weight.dtype))))
