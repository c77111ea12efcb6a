"""Device, precision, ranks, seeds and order: what every stage that trains stands on.

A batch is the global batch. Each rank keeps its rows of it, cut into
micro-batches; gradients add up to the mean over the global batch, so neither
the number of ranks nor the micro-batch changes what is learned.
"""

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ldmctl.attribution import named, plugin_of
from ldmctl.config.schemas.shared import Compute
from ldmctl.config.sharing import per_device
from ldmctl.errors import ConfigError, PluginWarning
from ldmctl.training.allocator import keep_blocks

Built = TypeVar("Built", bound=nn.Module)

WAIT = timedelta(hours=2)  # for other ranks: the first one lays out a cache of millions of pictures alone


@dataclass(frozen=True)
class Engine:
    """Where this process computes, in which precision, and which of the ranks it is."""

    device: torch.device
    dtype: torch.dtype  # of autocast; float32 means none
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager:
        """Around networks only: losses, statistics and schedules stay float32."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def frozen(self, network: Built) -> Built:
        """The same network here, to be used and not trained.

        Its convolutions keep the channels of a pixel side by side: up to 1.4 times as fast on a CPU (docs/numbers.md), and what a GPU
        wants in half precision; in float32 it wants them apart.
        """
        network = network.to(self.device).eval().requires_grad_(False)
        if self.device.type == "cpu" or (self.device.type == "cuda" and self.dtype != torch.float32):
            for weight in network.parameters():
                if weight.dim() == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return network

    def share(self, batch: int) -> slice:
        """This rank's rows of a global batch; a batch that the ranks cannot share equally is a ConfigError."""
        each = per_device(batch, self.world)
        return slice(self.rank * each, (self.rank + 1) * each)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the ranks."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.world
        return value

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the ranks."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def maximum(self, value: Tensor) -> Tensor:
        """The largest over the ranks, element by element."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    def any(self, flag: bool) -> bool:
        """Whether it holds on any rank; every rank must ask."""
        return bool(self.total(torch.tensor(float(flag), device=self.device)) > 0) if self.world > 1 else flag

    def joined(self, rows: list[Any]) -> list[Any]:
        """The lists of all ranks, one after the other; every rank must ask."""
        if self.world == 1:
            return rows
        lists: list[Any] = [None] * self.world
        dist.all_gather_object(lists, rows)
        return [row for each in lists for row in each]

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def start(machine: Compute) -> Engine:
    """The engine of this process. Under torchrun (RANK, WORLD_SIZE in the environment) it joins the process group."""
    device = _device(machine.device)
    keep_blocks(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else torch.cuda.current_device())
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False  # what is float32 under autocast is meant so, such as the gradient of a gradient
    if world > 1 and not dist.is_initialized():
        cuda = device.type == "cuda"
        dist.init_process_group("nccl" if cuda else "gloo", timeout=WAIT, device_id=device if cuda else None)
        dist.barrier()  # a rank that ends at once would else be gone while others still connect to it
    return Engine(device, precision(machine.precision, device), rank, world)


def _device(wanted: str) -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, present in there.items() if present)
    if not there[wanted]:
        raise ConfigError(f"machine.device={wanted}, but torch {torch.__version__} sees no such device here. Try --device auto.")
    return torch.device(wanted)


def precision(wanted: str, device: torch.device) -> torch.dtype:
    """The dtype of autocast: bf16 where the hardware multiplies in it, else float32; float16 only when asked."""
    if wanted == "auto":
        wanted = "bf16" if has_bf16(device) else "fp32"
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("machine.precision=fp16 is for GPUs; on a CPU take bf16 or fp32.")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[wanted]


def has_bf16(device: torch.device) -> bool:
    """Whether this device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("amx_tile"))
    return False


# -- seeds and order -------------------------------------------------------------


def recompute(module: nn.Module, wanted: bool, *, silent: bool = False) -> None:
    """Whether the parts of a network that can do so (attribute `checkpointing`) keep little for the backward and compute it again.

    A PluginWarning where it is wanted and no part can, unless `silent`.
    """
    parts = [part for part in module.modules() if hasattr(part, "checkpointing")]
    for part in parts:
        part.checkpointing = wanted  # type: ignore[assignment]
    if wanted and not parts and not silent and any(parameter.requires_grad for parameter in module.parameters()):
        made = next((plugin for part in module.modules() if (plugin := plugin_of(part)) is not None), None)
        name = named(made) if made else type(module).__name__
        warnings.warn(
            f"{name} has no parts that can be recomputed: loop.checkpointing=true saves no memory in it.", PluginWarning, stacklevel=2
        )


T = TypeVar("T")


def on_all(engine: Engine, make: Callable[[], T]) -> T:
    """What the first rank makes, on every rank."""
    box: list[Any] = [make() if engine.leads else None]
    if engine.world > 1:
        dist.broadcast_object_list(box)
    return box[0]  # type: ignore[no-any-return]


def from_all(engine: Engine, own: T) -> list[T]:
    """What each rank has, on every rank."""
    box: list[Any] = [own] * engine.world
    if engine.world > 1:
        dist.all_gather_object(box, own)
    return box
