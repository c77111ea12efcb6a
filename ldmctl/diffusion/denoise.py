"""What samplers see: `denoise(x, sigma)`, one network under one schedule, and random numbers of their own for each picture."""

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from ldmctl.attribution import expect, expect_shape, resembles
from ldmctl.diffusion.guidance import Guidance
from ldmctl.diffusion.process import Prediction, _spread, _unknown, timestep
from ldmctl.diffusion.self_conditioning import Recalled
from ldmctl.diffusion.spacing import CEILING, first_of, time_of
from ldmctl.errors import ConfigError, PluginError
from ldmctl.protocols import Condition, Schedule

Ask = Callable[[Tensor, Tensor, Condition | None], Tensor]  # a network


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


class Denoise:
    """`denoise(x, sigma) -> clean`: one network under one schedule, as samplers see it.

    Guidance (ldmctl.diffusion.guidance) is 1 for the plain condition, 0 for none; any other value asks the network both at
    once and goes that far from none to condition. With a network `weaker`, of the same prediction, that one takes the
    place of none. The network runs in the caller's autocast. `known` are places of levels in this schedule, found before and
    added to; `asker` is the sampler, and the shape that all it asks about has. A network that is `Recalled` remembers what it
    said of one batch, so it serves one sampling call. `lowest` is the level at the first time of the schedule, which samplers
    that choose levels themselves do not go below.
    """

    def __init__(
        self,
        network: Ask | Recalled,
        schedule: Schedule,
        prediction: Prediction,
        *,
        condition: Condition | None = None,
        null: Condition | None = None,
        guidance: float | Guidance = 1.0,
        weaker: Ask | Recalled | None = None,
        known: dict[float, tuple[float, float, float]] | None = None,
        asker: tuple[Any, torch.Size] | None = None,
    ):
        if prediction not in get_args(Prediction):
            raise _unknown(prediction)
        self.network, self.schedule, self.prediction, self.weaker = network, schedule, prediction, weaker
        self.guidance = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
        weight = self.guidance.weight
        if weaker is None and ((weight != 1 and null is None) or (weight not in (0, 1) and condition is None)):
            raise ConfigError(f"guidance={weight:g} needs a model trained with conditions, and this one has none: leave guidance at 1.")
        self.condition = null if weight == 0 else condition
        self.null = null
        paired = weight not in (0, 1) and weaker is None and condition is not None and null is not None
        self.both = joined(condition, null) if paired and condition is not None and null is not None else None
        self._known = {} if known is None else known
        self._asker = asker
        self._first, self._first_alpha, self.lowest = first_of(schedule)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """x [B,c,h,w] = clean + sigma * noise, sigma one number -> the estimate of clean, in the dtype of x."""
        level = float(sigma)
        if self._asker is not None and getattr(x, "shape", None) != self._asker[1]:
            self._refuse(x, *self._asker)
        timestep_value, scale, alpha = self._place(level)
        x_t = x * scale

        def clean(output: Tensor) -> Tensor:
            seen = x_t if len(output) == len(x_t) else torch.cat([x_t, x_t])
            return clean_from(self.prediction, seen, output, alpha, scale * level)

        if level > self.guidance.still:
            return clean(torch.zeros_like(x_t))
        if self.guidance.at(level) in (0, 1):
            return clean(self._ask(self.network, x_t, timestep_value, self.condition, clean))
        better, weaker = self._pair(x_t, timestep_value, clean)
        if self.guidance.method == "apg":
            return self.guidance.projected(clean(better), clean(weaker))
        guided = clean(self.guidance.outputs(better, weaker))
        return self.guidance.rescaled(guided, clean(better)) if self.guidance.rescale else guided

    def _refuse(self, x: Any, sampler: Any, shape: torch.Size) -> None:
        asked = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        expect(False, sampler, f"it asks what is clean of {asked}, not of all {list(shape)} together")

    def _pair(self, x_t: Tensor, timestep_value: float, clean: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """What is said with the condition, and what to go away from."""
        if self.weaker is not None:
            better = self._ask(self.network, x_t, timestep_value, self.condition, clean)
            return better, self._ask(self.weaker, x_t, timestep_value, self.null, clean)
        better, weaker = self._ask(self.network, torch.cat([x_t, x_t]), timestep_value, self.both, clean).chunk(2)
        return better, weaker

    def _ask(
        self,
        network: Ask | Recalled,
        x_t: Tensor,
        timestep_value: float,
        condition: Condition | None,
        clean: Callable[[Tensor], Tensor],
    ) -> Tensor:
        denoiser = network.denoiser if isinstance(network, Recalled) else network

        def said(condition: Condition | None) -> Tensor:
            output = denoiser(x_t, x_t.new_full((len(x_t),), timestep_value, dtype=torch.float32), condition)
            if not resembles(output, x_t):
                expect_shape(output, tuple(x_t.shape), denoiser, "forward", like=x_t)
            return output.to(x_t.dtype)

        return network.say(said, x_t, condition, clean) if isinstance(network, Recalled) else said(condition)

    def _place(self, level: float) -> tuple[float, float, float]:
        """(timestep, x_t / x, alpha) of a level, remembered; the last two differ in pure noise only, where alpha is 0.

        Below the `lowest` level of the schedule all three are those of its first time: nothing less noisy was trained.
        """
        if level not in self._known:
            if level <= 0:
                raise PluginError(f"The sampler asked what is clean at sigma = {level:g}; levels are positive, and at 0 all is clean.")
            below = level < self.lowest
            t = self._first if below else time_of(self.schedule, level)
            scale = self._first_alpha if below else self.schedule.marginal(t)[1].item() / level
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
