"""Networks sharded over the ranks by FSDP2 (Zhao et al., arXiv:2304.11277), and tensors of which each rank holds some rows.

A sharded network's weights, gradients, optimizer slots and averages are DTensors: each rank holds an even share of the first
dimension's rows, by the rule of `torch.chunk`. Units of the network are gathered for their forward and again for their backward.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ldmctl.errors import ConfigError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(module: nn.Module, device: torch.device) -> None:
    """Shard a network over all ranks in place: each part that has the attribute `checkpointing` is a unit, then what is left.

    Every rank brings the whole network with the same weights, as one seed makes them; units move to the device one by one. Weights
    and the reduction of gradients stay float32. ConfigError as of `refuse_single_numbers`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # which takes a second to import

    refuse_single_numbers(module)
    # of the whole network's output, which nobody writes to
    warnings.filterwarnings("ignore", rf"FSDP2-wrapped module \(FSDP{type(module).__name__}\) returned a view", UserWarning)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for part in reversed(list(module.modules())):  # the inner ones first
        if part is module or hasattr(part, "checkpointing"):
            fully_shard(part, mesh=mesh)


def refuse_single_numbers(module: nn.Module) -> None:
    """A parameter without dimensions has no rows that ranks could share: ConfigError."""
    if single := [name for name, parameter in module.named_parameters() if not parameter.dim()]:
        raise ConfigError(
            f"machine.parallel=fsdp cannot share {', '.join(single)}: a single number has no rows. Take machine.parallel=ddp."
        )


def is_sharded(tensor: Tensor | None) -> TypeGuard[DTensor]:
    """Whether a tensor is a DTensor."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """The rows of a tensor that this rank holds, in the same memory; all of one that is not sharded."""
    return tensor.to_local().detach() if is_sharded(tensor) else tensor


def rows(tensor: DTensor) -> slice:
    """Which rows of the whole this rank holds."""
    each = -(-len(tensor) // tensor.device_mesh.size())
    first = min(tensor.device_mesh.get_local_rank() * each, len(tensor))
    return slice(first, min(first + each, len(tensor)))


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors by name where they are to `keep`, else nothing. Sharded ones are gathered one at a time, by all ranks, and kept on the CPU."""
    out = {}
    for name, value in tensors.items():
        full = value.full_tensor().detach() if is_sharded(value) else value
        if keep:
            out[name] = full.cpu() if is_sharded(value) else value
    return out


class Spread:
    """A tensor [N,...] whose rows stand in several files, as pieces (first row, rows); read when it is asked for some of them."""

    def __init__(self, count: int, pieces: Sequence[tuple[int, Tensor]]):
        self.pieces = sorted(pieces, key=lambda piece: piece[0])
        self.shape = torch.Size([count, *self.pieces[0][1].shape[1:]])

    def __getitem__(self, wanted: slice) -> Tensor:
        """These rows, or all of them for `[:]`."""
        start, stop, _ = wanted.indices(self.shape[0])
        return torch.cat([piece[max(start - first, 0) : max(stop - first, 0)] for first, piece in self.pieces])


def laid_out(saved: Tensor | Spread, like: Tensor | None) -> Tensor:
    """What was saved, as a tensor like this one is held: where that is sharded, only this rank's rows are read. One of another shape is whole."""
    if is_sharded(like) and saved.shape == like.shape:
        from torch.distributed.tensor import DTensor

        mine = saved[rows(like)].to(local(like).device).reshape(local(like).shape)
        return DTensor.from_local(mine, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())
    return whole(saved)


def whole(saved: Tensor | Spread) -> Tensor:
    """All rows of what was saved."""
    return saved[:] if isinstance(saved, Spread) else saved
