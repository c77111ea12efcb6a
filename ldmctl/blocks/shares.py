"""A global batch whose rows the ranks share: the first rank has the first rows, and all have as many.

So statistics and random choices can be those of the whole batch, whatever the number of ranks; with one rank nothing is sent.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """(this rank, how many there are)"""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def total(value: Tensor) -> Tensor:
    """The sum over the ranks, in place."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(value)
    return value


def of_first(*values: Tensor) -> None:
    """Take over the first rank's values, in place: devices may round differently."""
    if rank_and_world()[1] > 1:
        for value in values:
            dist.broadcast(value, src=0)


def global_rows(rows: Tensor, indices: Tensor) -> Tensor:
    """This rank's rows [N,c] and indices [n] into those of all ranks -> [n,c], the same on every rank."""
    rank, world = rank_and_world()
    if world == 1:
        return rows[indices]
    own = indices - rank * len(rows)
    mine = (own >= 0) & (own < len(rows))
    return total(torch.where(mine[:, None], rows[own.clamp(0, len(rows) - 1)], 0))


def global_deviation(rows: Tensor) -> Tensor:
    """This rank's rows [N,c] -> [c], the deviation over those of all ranks."""
    exact, world = exactly(rows), rank_and_world()[1]
    mean = total(exact.mean(0)) / world
    return (total((exact - mean).square().mean(0)) / world).sqrt().to(rows.dtype)


def exactly(value: Tensor) -> Tensor:
    """In float64 where the device has it: the order of a sum, so ranks and micro-batches, then leaves no trace in float32."""
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)
