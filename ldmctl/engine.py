"""Device, precision, ranks, seeds, optimizer and averages: what every stage that trains stands on.

A batch is the global batch. Each rank keeps its rows of it, cut into
micro-batches; gradients add up to the mean over the global batch, so neither
the number of ranks nor the micro-batch changes what is learned.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ldmctl.averages import PowerAverages
from ldmctl.errors import ConfigError, MismatchError, MissingError
from ldmctl.schemas import Compute, Loop


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

    def share(self, batch: int) -> slice:
        """This rank's rows of a global batch; a batch that the ranks cannot share equally is a ConfigError."""
        if batch % self.world:
            raise ConfigError(f"loop.batch={batch} cannot be shared by {self.world} devices; take a multiple of {self.world}.")
        each = batch // self.world
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
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else torch.cuda.current_device())
        torch.cuda.set_device(device)
        # Convolutions only: float32 matmuls stay exact, since the nearest codes are searched with them.
        torch.backends.cudnn.allow_tf32 = machine.precision != "fp32"
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
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


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on all parts, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def generator(device: torch.device | str, *parts: object) -> torch.Generator:
    """A generator on a device, seeded by all parts."""
    return torch.Generator(device).manual_seed(seed_of(*parts))


def reseed(*parts: object) -> None:
    """Seed the global generators, so that what follows is the same after a resume."""
    torch.manual_seed(seed_of(*parts))


BLOCK = 256  # neighbours that `blocks` keeps near each other
WINDOW = 128 * BLOCK  # items that it mixes


@lru_cache(maxsize=2)  # the epoch that is learned from and the one that is read ahead
def epoch_order(seed: int, epoch: int, count: int, shuffle: str = "full") -> Tensor:
    """A permutation of range(count), a pure function of its arguments.

    `full`: any of them. `blocks`: blocks of BLOCK neighbours in any order, and items
    mixed within each WINDOW of them, so that at any time only a window is read from.
    """
    random = generator("cpu", "order", seed, epoch, count)
    if shuffle == "full":
        return torch.randperm(count, generator=random)
    blocks = torch.randperm(-(-count // BLOCK), generator=random)
    return torch.cat([_mixed(window, count, random) for window in blocks.split(WINDOW // BLOCK)])


def _mixed(blocks: Tensor, count: int, random: torch.Generator) -> Tensor:
    """The items of these blocks, in any order."""
    items = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
    items = items[items < count]
    return items[torch.randperm(len(items), generator=random)]


def batch_items(seed: int, count: int, batch: int, step: int, shuffle: str = "full") -> Tensor:
    """The items [batch] of one step: the epochs' permutations, one after the other, cut into batches."""
    rows, position, end = [], step * batch, (step + 1) * batch
    while position < end:
        epoch, first = divmod(position, count)
        rows.append(epoch_order(seed, epoch, count, shuffle)[first : first + end - position])
        position += len(rows[-1])
    return torch.cat(rows)


def micro_batches(count: int, micro: int | None) -> list[slice]:
    """Consecutive slices of at most `micro` rows."""
    size = micro or count
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def recompute(module: nn.Module, wanted: bool) -> None:
    """Whether the parts of a network that can do so (attribute `checkpointing`) keep little for the backward and compute it again."""
    for part in module.modules():
        if hasattr(part, "checkpointing"):
            part.checkpointing = wanted  # type: ignore[assignment]


def compiles(wanted: bool | Literal["auto"], engine: Engine) -> bool:
    """Whether networks are compiled: asked for, or on cuda where it can be done. MissingError when asked for and it cannot."""
    if wanted == "auto":
        return engine.device.type == "cuda" and _compiler() is not None
    if wanted and _compiler() is None:
        raise MissingError(
            "machine.compile=true needs a C++ compiler (g++ or clang++ on the PATH, or the one CXX names), and there is none."
        )
    return wanted


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next((found for name in ([named] if named else ["g++", "clang++", "c++"]) if (found := shutil.which(name))), None)


# -- one network under training ----------------------------------------------------


def learning_rate(loop: Loop, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    peak = loop.lr * min(1.0, (step + 1) / max(loop.warmup, 1))
    if loop.decay == "constant" or step < loop.warmup:
        return peak
    if loop.decay == "cosine":
        done = (step - loop.warmup) / max(loop.steps - loop.warmup, 1)
        return peak * float(0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * min(done, 1.0), dtype=torch.float64)))
    reference = max(loop.warmup, 1)
    return peak * (reference / max(step, reference)) ** 0.5


class Learner:
    """A network, its optimizer, and the moving average of its weights.

    `network` is what forwards go through while training (DDP when there are
    ranks); `module` is the bare module; `average` holds the EMA weights, float32,
    by state-dict name, or is empty. `around` is what forwards go through instead of
    the module, when that is a module around it; `alters` says whether the module's
    own `after_step` is called; `compiled` puts these forwards through torch.compile.
    """

    def __init__(
        self,
        module: nn.Module,
        loop: Loop,
        engine: Engine,
        *,
        averaged: bool = True,
        lr: float | None = None,
        around: nn.Module | None = None,
        alters: bool = True,
        compiled: bool = False,
    ):
        self.module = module
        self.alters = alters
        self.loop = loop
        self.engine = engine
        self.rate = 1.0 if lr is None else lr / loop.lr
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.network: Callable = module if around is None else around
        if compiled:
            self.network = torch.compile(self.network)
        if engine.world > 1 and self.parameters:
            ids = [engine.device.index] if engine.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.network, device_ids=ids, broadcast_buffers=False)
        fused = engine.device.type in ("cuda", "cpu")
        self.optimizer = (
            torch.optim.AdamW(self.parameters, lr=loop.lr, betas=loop.betas, weight_decay=loop.weight_decay, fused=fused)
            if self.parameters
            else None
        )
        self.average = {name: value.detach().clone() for name, value in module.state_dict().items()} if averaged else {}
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.powers = PowerAverages(module.state_dict(), trained) if averaged and loop.keep.averages else None
        self.scale = torch.tensor(2.0**12 if engine.dtype == torch.float16 else 1.0, device=engine.device)  # of the loss
        self._growth = torch.zeros((), dtype=torch.int32, device=engine.device)

    def backward_context(self, *, last: bool) -> AbstractContextManager:
        """Around a forward and its backward: ranks exchange gradients at the last micro-batch only."""
        waits = isinstance(self.network, DistributedDataParallel) and not last
        return self.network.no_sync() if waits else nullcontext()  # type: ignore[attr-defined]

    def update(self, step: int) -> tuple[Tensor, Tensor]:
        """One optimizer step -> (gradient norm, 1.0 if it was not finite and the step was skipped). No host sync."""
        assert self.optimizer is not None
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients) / self.scale
        bad = (~norm.isfinite()).float()
        factor = 1 / self.scale
        if self.loop.clip is not None:
            factor = factor * (self.loop.clip / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.loop, step) * self.rate
        self._step(bad)
        self.optimizer.zero_grad(set_to_none=True)
        if self.engine.dtype == torch.float16:
            torch._amp_update_scale_(self.scale, self._growth, bad, 2.0, 0.5, 2000)
        return norm, bad

    def _step(self, bad: Tensor) -> None:
        assert self.optimizer is not None
        if self.optimizer.defaults["fused"]:
            self.optimizer.found_inf = bad  # type: ignore[attr-defined]  # the fused kernel skips by itself
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bad:
            self.optimizer.step()

    def after_step(self) -> Iterable[str]:
        """The module's own `after_step`, where it has one -> names of tensors that it re-initialised."""
        own: Callable[[], Iterable[str]] = getattr(self.module, "after_step", tuple)
        return own() if self.alters else ()

    @torch.no_grad()
    def track(self, step: int, renewed: Iterable[str] = ()) -> None:
        """Move the average towards the weights; copy buffers and what was `renewed` (re-initialised)."""
        decay = min(self.loop.ema, (1 + step) / (10 + step))
        weights = dict(self.module.state_dict())
        trained = {name for name, parameter in self.module.named_parameters() if parameter.requires_grad} - set(renewed)
        averaged = [name for name in self.average if name in trained]
        torch._foreach_lerp_([self.average[name] for name in averaged], [weights[name] for name in averaged], 1 - decay)
        for name in self.average.keys() - trained:
            self.average[name].copy_(weights[name])
        if self.powers is not None:
            self.powers.update(step + 1, weights, set(renewed))

    def averaged(self) -> "Averaged":
        """A context in which the module holds the averaged weights and is in eval mode."""
        return Averaged(self)

    def state(self, prefix: str) -> dict[str, Tensor]:
        """Everything that a resume needs, by name."""
        out = {f"{prefix}.weights.{name}": value for name, value in self.module.state_dict().items()}
        out |= {f"{prefix}.average.{name}": value for name, value in self.average.items()}
        out |= {f"{prefix}.scale": self.scale, f"{prefix}.growth": self._growth}
        out |= self.powers.state(f"{prefix}.powers") if self.powers is not None else {}
        for index, parameter in enumerate(self.parameters):
            slots = self.optimizer.state.get(parameter, {}) if self.optimizer else {}
            out |= {f"{prefix}.optimizer.{index}.{key}": value for key, value in slots.items()}
        return out

    def restore(self, prefix: str, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; a state of another network is a MismatchError."""
        part = {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}
        try:
            self.module.load_state_dict(_below(part, "weights."))
        except RuntimeError as error:
            raise MismatchError(f"The saved state is of another {prefix}: {' '.join(str(error).split())[:300]}") from None
        for name, value in _below(part, "average.").items():
            self.average[name] = value.to(self.engine.device)
        if self.powers is not None:
            self.powers.restore("powers", part)
        self.scale.copy_(part["scale"])
        self._growth.copy_(part["growth"])
        for index, parameter in enumerate(self.parameters):
            slots = {key: value.to(self.engine.device) for key, value in _below(part, f"optimizer.{index}.").items()}
            if slots and self.optimizer:
                self.optimizer.state[parameter] = slots


class Averaged:
    """Within it a learner's module holds its averaged weights, in eval mode; afterwards the trained ones again."""

    def __init__(self, learner: Learner):
        self.learner = learner

    def __enter__(self) -> nn.Module:
        module = self.learner.module
        self.modes = {part: part.training for part in module.modules()}  # part by part: frozen ones rest in eval mode
        self.kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
        if self.learner.average:
            module.load_state_dict(self.learner.average)
        return module.eval()

    def __exit__(self, *_: object) -> None:
        self.learner.module.load_state_dict(self.kept)
        for part, training in self.modes.items():
            part.training = training


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
