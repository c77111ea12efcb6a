"""From what a network predicts to what a sampler asks for, for any schedule.

A schedule mixes x_t = alpha x_0 + sigma noise. Samplers know only x = x_t / alpha and
the level sigma / alpha, in which all schedules look alike: x = x_0 + level * noise. Here
is the way in (training: times, noised latents, targets), the way back (`Denoise`), and
where to stop on it (`levels`). Times and levels are float64 on the CPU, latents float32
wherever they are.

A schedule made of T betas says so in an attribute `timesteps`; it is trained and
sampled at t = i/T only, i in 1..T. The others live in continuous time.
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ldmctl.errors import ConfigError, PluginError
from ldmctl.protocols import Condition, Schedule

Prediction = Literal["eps", "x0", "v", "flow"]
Spacing = Literal["trailing", "leading", "linspace"]
CEILING = 1e4  # the level that stands for pure noise, where alpha is 0 and sigma / alpha infinite
EDGE = 1e-5  # continuous training times keep this distance from 0 and 1
GRID = 1000  # steps that continuous time is thought to have, where a spacing needs to know

# -- training ------------------------------------------------------------------


def draw_times(schedule: Schedule, u: Tensor) -> Tensor:
    """Uniform u [B] in [0, 1) -> training times t [B], float64 unless u is float32 on a device without it."""
    u = u if u.device.type == "mps" else u.double()
    if steps := _steps(schedule):
        return ((u * steps).floor() + 1).clamp(max=steps) / steps
    return u.clamp(EDGE, 1 - EDGE)


def timestep(schedule: Schedule, t: Tensor) -> Tensor:
    """What a network is told at t [B], float32: the schedule's own `timestep`, else 1000 t."""
    told = schedule.timestep(t) if hasattr(schedule, "timestep") else 1000 * t
    return told.float()


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


def clean_from(prediction: Prediction, x_t: Tensor, output: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """The clean latent [B,c,h,w] that `output`, said of x_t, stands for; alpha and sigma are numbers or [B].

    Where alpha is 0 an eps-network cannot know it: then it is 0, the mean of latents.
    """
    alpha, sigma = _spread(alpha, x_t), _spread(sigma, x_t)
    if prediction == "eps":
        return (x_t - sigma * output) * torch.where(alpha == 0, 0.0, 1 / alpha)
    if prediction == "x0":
        return output
    if prediction == "v":
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)
    if prediction == "flow":
        return (x_t - sigma * output) / (alpha + sigma)
    raise _unknown(prediction)


# -- sampling ------------------------------------------------------------------


class Denoise:
    """`denoise(x, sigma) -> clean`: one network under one schedule, as samplers see it.

    Guidance (arXiv:2207.12598) is 1 for the plain condition, 0 for none; any other
    value asks the network both at once and goes that far from none to condition.
    The network runs in the caller's autocast.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Condition | None], Tensor],
        schedule: Schedule,
        prediction: Prediction,
        *,
        condition: Condition | None = None,
        null: Condition | None = None,
        guidance: float = 1.0,
    ):
        if prediction not in get_args(Prediction):
            raise _unknown(prediction)
        self.network, self.schedule, self.prediction, self.guidance = network, schedule, prediction, guidance
        self.both = guidance not in (0, 1)
        if (guidance != 1 and null is None) or (self.both and condition is None):
            raise ConfigError(f"guidance={guidance:g} needs a model trained with conditions, and this one has none: leave guidance at 1.")
        self.condition = null if guidance == 0 else condition
        if condition is not None and null is not None and self.both:
            self.condition = joined(condition, null)
        self._known: dict[float, tuple[float, float, float]] = {}

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """x [B,c,h,w] = clean + sigma * noise, sigma one number -> the estimate of clean, in the dtype of x."""
        told, scale, alpha = self._place(float(sigma))
        x_t = x * scale
        output = self._output(x_t, told).to(x.dtype)
        return clean_from(self.prediction, x_t, output, alpha, scale * float(sigma))

    def _output(self, x_t: Tensor, told: float) -> Tensor:
        if not self.both:
            return self.network(x_t, x_t.new_full((len(x_t),), told, dtype=torch.float32), self.condition)
        both = torch.cat([x_t, x_t])
        output = self.network(both, both.new_full((len(both),), told, dtype=torch.float32), self.condition)
        with_condition, without = output.to(x_t.dtype).chunk(2)
        return without + self.guidance * (with_condition - without)

    def _place(self, level: float) -> tuple[float, float, float]:
        """(timestep, x_t / x, alpha) of a level, remembered; the last two differ in pure noise only, where alpha is 0."""
        if level not in self._known:
            if level <= 0:
                raise PluginError(f"The sampler asked what is clean at sigma = {level:g}; levels are positive, and at 0 all is clean.")
            t = time_of(self.schedule, level)
            scale = self.schedule.marginal(t)[1].item() / level
            self._known[level] = timestep(self.schedule, t).item(), scale, scale if level < CEILING else 0.0
        return self._known[level]


def joined(first: Condition, second: Condition) -> Condition:
    """Two batches of conditions as one; token sequences are padded to the longer one."""
    for name, one, other in zip(Condition._fields, first, second, strict=True):
        if name != "mask" and (one is None) != (other is None):
            raise PluginError(f"The conditioner's null condition and its conditions differ: only one of them has {name}.")
    if first.tokens is not None and second.tokens is not None:
        length = max(first.tokens.shape[1], second.tokens.shape[1])
        if (first.mask, second.mask) != (None, None) or first.tokens.shape[1] != second.tokens.shape[1]:
            first, second = _padded(first, first.tokens, length), _padded(second, second.tokens, length)
    pairs = zip(first, second, strict=True)
    return Condition(*(None if one is None or other is None else torch.cat([one, other]) for one, other in pairs))


def _padded(condition: Condition, tokens: Tensor, length: int) -> Condition:
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if condition.mask is None else condition.mask
    more = length - tokens.shape[1]
    return condition._replace(tokens=pad(tokens, (0, 0, 0, more)), mask=pad(mask, (0, more)))


# -- times and levels ------------------------------------------------------------


def levels(schedule: Schedule, steps: int, spacing: Spacing = "trailing") -> tuple[Tensor, Tensor]:
    """(times [S], levels sigma / alpha [S+1]), float64, both falling; the last level is 0.

    The spacings are those of arXiv:2305.08891, table 2, as in diffusers: `trailing` starts at pure noise (t = 1),
    `linspace` too and ends at the first step, `leading` starts below. A single step always starts at t = 1.
    """
    total = _steps(schedule)
    if steps < 1 or (total and steps > total):
        raise ConfigError(f"steps={steps} cannot be taken: ask for 1 to {total or 'some thousands'} with this schedule.")
    times = _times(steps, spacing, total) if steps > 1 else torch.ones(1, dtype=torch.float64)
    alpha, sigma = schedule.marginal(times)
    sigmas = torch.cat([(sigma / alpha).clamp(max=CEILING), times.new_zeros(1)])
    if not (sigmas.diff() < 0).all():
        raise ConfigError(f"steps={steps} cannot be taken: the first levels are too close to pure noise to differ. Take fewer.")
    return times, sigmas


def _times(steps: int, spacing: Spacing, total: int | None) -> Tensor:
    grid = total or max(GRID, steps)
    whole = torch.round if total else torch.clone  # half to even, as numpy does
    index = torch.arange(steps, dtype=torch.float64)
    if spacing == "trailing":
        return whole(grid - index * (grid / steps)) / grid
    if spacing == "leading":
        stride = grid // steps if total else grid / steps
        return (index.flip(0) * stride + 1) / grid
    if spacing == "linspace":
        return (whole(torch.from_numpy(np.linspace(0, grid - 1, steps)).flip(0)) + 1) / grid
    raise ConfigError(f"spacing={spacing!r} is none of {', '.join(get_args(Spacing))}.")


def time_of(schedule: Schedule, level: float) -> Tensor:
    """The time t [1], float64, at which sigma / alpha is `level`; exactly i/T at the levels of a schedule of T betas."""
    if level >= CEILING:
        return torch.ones(1, dtype=torch.float64)
    low, high = torch.zeros(()).double(), torch.ones(()).double()
    for _ in range(6):  # a thousandfold each: 1e-18 in the end, below float64
        times = torch.lerp(low, high, torch.linspace(0, 1, 1001, dtype=torch.float64))
        alpha, sigma = schedule.marginal(times)
        above = int(torch.searchsorted(sigma / alpha, level).clamp(1, 1000))
        low, high = times[above - 1], times[above]
    t = high.reshape(1)
    if total := _steps(schedule):
        step = (t * total).round()
        t = torch.where((t * total - step).abs() < 1e-6, step / total, t)
    return t


def start(noise: Tensor, sigmas: Tensor) -> Tensor:
    """x [B,c,h,w] at sigmas[0] from standard normal noise: as wide as noised latents of deviation 1 are there.

    So x_t has deviation 1 for schedules with alpha^2 + sigma^2 = 1, as in diffusers, and is the noise itself where alpha is 0.
    """
    return noise * (1 + sigmas[0].item() ** 2) ** 0.5


class Noise:
    """Random numbers of a batch of pictures, one stream for each.

    What a picture gets depends on its own seed and on the step's levels, not on its place
    in the batch, on its neighbours or on the steps before. It is drawn on the CPU.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        self.seeds, self.shape, self.device = list(seeds), tuple(shape), device
        self._asked: Counter[bytes] = Counter()

    def first(self) -> Tensor:
        """Standard normal [B,c,h,w] to start from, always the same."""
        return self._draw(b"first")

    def __call__(self, sigma: Tensor | float, sigma_next: Tensor | float) -> Tensor:
        """Standard normal [B,c,h,w] for the step between two levels; asked again, another one."""
        step = struct.pack("<dd", sigma, sigma_next)
        self._asked[step] += 1
        return self._draw(step + self._asked[step].to_bytes(8, "little"))

    def _draw(self, purpose: bytes) -> Tensor:
        rows = [torch.randn(self.shape, generator=_generator(seed, purpose)) for seed in self.seeds]
        return torch.stack(rows).to(self.device)


def _generator(seed: int, purpose: bytes) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:".encode() + purpose).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


# -- small parts -------------------------------------------------------------------


def _steps(schedule: Schedule) -> int | None:
    return getattr(schedule, "timesteps", None)


def _marginal(schedule: Schedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = schedule.marginal(t)
    return _spread(alpha, like), _spread(sigma, like)


def _spread(value: Tensor | float, like: Tensor) -> Tensor:
    """A number or [B] as [B,1,1,1], to multiply `like` with."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))


def _unknown(prediction: str) -> ConfigError:
    return ConfigError(f"prediction={prediction!r} is none of {', '.join(get_args(Prediction))}.")
