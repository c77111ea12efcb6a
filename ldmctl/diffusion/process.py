"""From what a network predicts to what a sampler asks for, for any schedule.

A schedule mixes x_t = alpha x_0 + sigma noise. Samplers know only x = x_t / alpha and
the level sigma / alpha, in which all schedules look alike: x = x_0 + level * noise. Here
is the way in (training: times, noised latents, targets), the way back (`Denoise`), and
where to stop on it (`levels`). Times and levels are float64 on the CPU, latents float32
wherever they are.

A schedule made of T betas says so in an attribute `timesteps`; it is trained and
sampled at t = i/T only, i in 1..T. The others live in continuous time.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from ldmctl.diffusion.spacing import _steps
from ldmctl.errors import ConfigError
from ldmctl.protocols import Schedule

Prediction = Literal["eps", "x0", "v", "flow"]
EDGE = 1e-5  # continuous training times keep this distance from 0 and 1

# -- training ------------------------------------------------------------------


def draw_times(schedule: Schedule, u: Tensor) -> Tensor:
    """Uniform u [B] in [0, 1) -> training times t [B], float64 unless u is float32 on a device without it."""
    u = u if u.device.type == "mps" else u.double()
    if steps := _steps(schedule):
        return ((u * steps).floor() + 1).clamp(max=steps) / steps
    u = u.clamp(EDGE, 1 - EDGE)
    return schedule.training_time(u).clamp(EDGE, 1 - EDGE) if hasattr(schedule, "training_time") else u


def timestep(schedule: Schedule, t: Tensor) -> Tensor:
    """What a network is told at t [B], float32: the schedule's own `timestep`, else 1000 t."""
    value = schedule.timestep(t) if hasattr(schedule, "timestep") else 1000 * t
    return value.float()


def noised(schedule: Schedule, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t [B,c,h,w] = alpha(t) clean + sigma(t) noise, float32."""
    clean, noise = clean.float(), noise.float()
    alpha, sigma = _marginal(schedule, t, clean)
    return alpha * clean + sigma * noise


def target(prediction: Prediction, schedule: Schedule, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the network should say of x_t [B,c,h,w], float32."""
    clean, noise = clean.float(), noise.float()
    if prediction == "eps":
        return noise
    if prediction == "x0":
        return clean
    if prediction == "flow":
        return noise - clean
    if prediction == "v":  # arXiv:2202.00512
        alpha, sigma = _marginal(schedule, t, clean)
        return alpha * noise - sigma * clean
    raise _unknown(prediction)


# -- sampling ------------------------------------------------------------------


# -- times and levels ------------------------------------------------------------


# -- small parts -------------------------------------------------------------------


def _marginal(schedule: Schedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = schedule.marginal(t)
    return _spread(alpha, like), _spread(sigma, like)


def _spread(value: Tensor | float, like: Tensor) -> Tensor:
    """A number or [B] as [B,1,1,1], to multiply `like` with."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))


def _unknown(prediction: str) -> ConfigError:
    return ConfigError(f"prediction={prediction!r} is none of {', '.join(get_args(Prediction))}.")
