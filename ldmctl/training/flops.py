"""How much arithmetic a network is, and how much this device can do: together, the share of its peak that training reaches."""

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldmctl.training.engine import Engine

SIDE = {"cuda": 8192, "cpu": 1024}  # of the square matrices that the peak is measured with
TRIES = 6


@torch.no_grad()
def forward_flops(forward: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions of a forward; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        forward()
    return counter.get_total_flops()


def training_flops(flops: int, *, checkpointing: bool = False, self_conditioning: bool = False) -> int:
    """Of a training step, from those of its forward: the backward is two forwards, with checkpointing there is one more, and with
    self-conditioning one in every other step."""
    return flops * (4 if checkpointing else 3) + (flops // 2 if self_conditioning else 0)


def parameter_bytes(network: nn.Module) -> int:
    """Bytes of the weights."""
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


@torch.no_grad()
def peak_rate(engine: Engine) -> float:
    """Floating-point operations per second that one device reaches in a large matrix product in the engine's precision."""
    side = SIDE.get(engine.device.type, 2048)
    a = torch.randn(side, side, device=engine.device, dtype=engine.dtype, generator=torch.Generator(engine.device).manual_seed(0))
    seconds = []
    for _ in range(TRIES):
        _wait(engine)
        began = time.perf_counter()
        a @ a
        _wait(engine)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def seconds_of(step: Callable[[], object], engine: Engine) -> float:
    """Seconds of a step, once it has been made before."""
    step()
    _wait(engine)
    began = time.perf_counter()
    step()
    _wait(engine)
    return time.perf_counter() - began


def _wait(engine: Engine) -> None:
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    elif engine.device.type == "mps":
        torch.mps.synchronize()


def parameter_count(module: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
