"""One network under training: its optimizer, its gradients over micro-batches and ranks, and the averages of its weights."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ldmctl.config.schemas.shared import Loop
from ldmctl.errors import MismatchError
from ldmctl.training.ema import PowerAverages, Renewed, restart_rows
from ldmctl.training.engine import Engine
from ldmctl.training.fsdp import Spread, laid_out, local, shard, whole

Saved = TypeVar("Saved", bound=Tensor | Spread)
SLOTS = {"step", "exp_avg", "exp_avg_sq"}  # what AdamW keeps of a parameter


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
    With `sharded` the ranks share the module itself (FSDP2 instead of DDP) and with it
    all that is made of its weights: every rank takes part in every forward.
    """

    def __init__(
        self,
        module: nn.Module,
        loop: Loop,
        engine: Engine,
        *,
        averaged: bool = True,
        lr: float | None = None,
        betas: tuple[float, float] | None = None,
        around: nn.Module | None = None,
        alters: bool = True,
        compiled: bool = False,
        sharded: bool = False,
    ):
        self.module = module
        self.alters = alters
        self.loop = loop
        self.engine = engine
        self.rate = 1.0 if lr is None else lr / loop.lr
        self.sharded = sharded and engine.world > 1
        if self.sharded:
            shard(module, engine.device)
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.network: Callable = module if around is None else around
        if compiled:
            self.network = torch.compile(self.network)
        if engine.world > 1 and self.parameters and not self.sharded:
            ids = [engine.device.index] if engine.device.type == "cuda" else None
            with warnings.catch_warnings():  # torch 2.15 advises against the one argument that keeps each rank's buffers its own
                warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
                self.network = DistributedDataParallel(self.network, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)
        fused = engine.device.type in ("cuda", "cpu")
        self.optimizer = (
            torch.optim.AdamW(self.parameters, lr=loop.lr, betas=betas or loop.betas, weight_decay=loop.weight_decay, fused=fused)
            if self.parameters
            else None
        )
        self.average = {name: value.detach().clone() for name, value in module.state_dict().items()} if averaged else {}
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.powers = PowerAverages(module.state_dict(), trained) if averaged and loop.keep.averages else None
        self.scale = torch.tensor(2.0**12 if engine.dtype == torch.float16 else 1.0, device=engine.device)  # of the loss
        self._growth = torch.zeros((), dtype=torch.int32, device=engine.device)

    def backward_context(self, *, last: bool) -> AbstractContextManager:
        """Around a forward and its backward: ranks exchange gradients at the last micro-batch only.

        Until then each rank holds those of the whole network, 4 bytes per parameter, of a sharded one too.
        """
        if self.sharded:
            self.module.set_requires_gradient_sync(last)  # type: ignore[operator]
        waits = isinstance(self.network, DistributedDataParallel) and not last
        return self.network.no_sync() if waits else nullcontext()  # type: ignore[attr-defined]

    def update(self, step: int) -> tuple[Tensor, Tensor]:
        """One optimizer step -> (gradient norm, 1.0 if it was not finite and the step was skipped). No host sync."""
        assert self.optimizer is not None
        gradients = [local(parameter.grad) for parameter in self.parameters if parameter.grad is not None]
        norm = self._norm(gradients) / self.scale
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

    def _norm(self, gradients: Sequence[Tensor]) -> Tensor:
        norm = nn.utils.get_total_norm(gradients)
        return self.engine.total(norm.square()).sqrt() if self.sharded else norm

    def _step(self, bad: Tensor) -> None:
        assert self.optimizer is not None
        if self.optimizer.defaults["fused"]:
            self.optimizer.found_inf = bad  # type: ignore[attr-defined]  # the fused kernel skips by itself
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bad:
            self.optimizer.step()

    def after_step(self) -> Renewed:
        """The module's own `after_step`, where it has one -> what it re-initialised."""
        own: Callable[[], Renewed] = getattr(self.module, "after_step", tuple)
        return own() if self.alters else ()

    @torch.no_grad()
    def track(self, step: int, renewed: Renewed = ()) -> None:
        """Move the average towards the weights; copy buffers and what was `renewed` (re-initialised)."""
        decay = min(self.loop.ema, (1 + step) / (10 + step))
        weights = dict(self.module.state_dict())
        trained = {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        averaged = [name for name in self.average if name in trained]
        torch._foreach_lerp_([self.average[name] for name in averaged], [weights[name] for name in averaged], 1 - decay)
        for name in self.average.keys() - trained:
            self.average[name].copy_(weights[name])
        restart_rows(self.average, weights, renewed)
        if self.powers is not None:
            self.powers.update(step + 1, weights, renewed)

    @torch.no_grad()
    def go_back(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from earlier weights, by state-dict name: they become the module's and its averages', and the optimizer forgets its
        direction, but not how large gradients are."""
        self.module.load_state_dict(weights)
        for name, value in self.average.items():
            value.copy_(weights[name])
        if self.powers is not None:
            self.powers.begin_again(weights)
        for slots in self.optimizer.state.values() if self.optimizer else ():
            slots["exp_avg"].zero_()

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

    def restore(self, prefix: str, state: Mapping[str, Tensor | Spread]) -> None:
        """Take back what `state` gave, on any number of ranks, sharded or not; a state of another network is a MismatchError."""
        part = _below(state, f"{prefix}.")
        weights = self.module.state_dict()
        saved = {name: laid_out(value, weights.get(name)) for name, value in _below(part, "weights.").items()}
        try:
            self.module.load_state_dict(saved)
        except RuntimeError as error:
            raise MismatchError(f"The saved state is of another {prefix}: {' '.join(str(error).split())[:300]}") from None
        averaged = _below(part, "average.")
        shapes = {name: tuple(value.shape) for name, value in averaged.items()}
        if shapes != {name: tuple(value.shape) for name, value in self.average.items()} or not {"scale", "growth"} <= part.keys():
            raise MismatchError(f"The saved state of {prefix} is damaged: its averages are not those of this network.")
        for name, value in averaged.items():
            self.average[name].copy_(laid_out(value, self.average[name]))
        if self.powers is None and self.average and _below(part, "powers."):  # kept up: a step without them would end them for good
            trained = {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}
            self.powers = PowerAverages(self.module.state_dict(), trained)
        if self.powers is not None:
            self.powers.restore("powers", part)
        if self.engine.dtype == torch.float16 and float(whole(part["scale"])) != 1.0:  # 1: of a state in another precision
            self.scale.copy_(whole(part["scale"]))
            self._growth.copy_(whole(part["growth"]))
        for index, parameter in enumerate(self.parameters):
            slots = {key: laid_out(value, parameter).to(self.engine.device) for key, value in _below(part, f"optimizer.{index}.").items()}
            if slots and self.optimizer:
                means = [value for key, value in slots.items() if key != "step"]
                alike = all((value.shape, value.dtype) == (parameter.shape, parameter.dtype) for value in means)
                if slots.keys() != SLOTS or slots["step"].numel() != 1 or not slots["step"].is_floating_point() or not alike:
                    raise MismatchError(f"The saved state of {prefix} is damaged: AdamW's averages of parameter {index} are not whole.")
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
        if self.learner.sharded:
            module.unshard()  # type: ignore[operator]  # what is in no unit; parts are called by themselves too, as samplers do
        return module.eval()

    def __exit__(self, *_: object) -> None:
        if self.learner.sharded:
            self.learner.module.reshard()  # type: ignore[operator]
        self.learner.module.load_state_dict(self.kept)
        for part, training in self.modes.items():
            part.training = training


def _below(state: Mapping[str, Saved], prefix: str) -> dict[str, Saved]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
