"""What learning a word, or a class, minimises: the denoising loss of a few pictures under captions that say it, or under the class
(Gal et al., arXiv:2208.01618, eq. 2).

The vectors are one tensor beside the model, and the only one that wants gradients: they are read where others are looked up, so no other
word or class shares a parameter, an optimizer or a weight decay with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ldmctl.config.base import PluginConfig
from ldmctl.config.schemas.fit_diffusion import FitDiffusion, Times
from ldmctl.diffusion.lesson import Lesson
from ldmctl.diffusion.model import Model
from ldmctl.diffusion.objective import denoising_losses, draw
from ldmctl.diffusion.weighting import GOLDEN, validation_times
from ldmctl.errors import DivergedError
from ldmctl.latents.conditions import Known
from ldmctl.latents.prepared import padded
from ldmctl.protocols import Condition
from ldmctl.training.engine import Engine
from ldmctl.training.order import batch_items, generator, reseed

MEASURED = 128  # noised pictures, always the same, by which a word is measured
HALF = 2.0**12  # of the loss in float16, whose smallest numbers lie above most gradients


class Inversion:
    """A word or class that is being learned: its vectors, and the optimizer that moves them.

    `stored` are the moments of the pictures [N,m,h,w], `captions` what may be said of each of them, for a class nothing.
    """

    def __init__(self, model: Model, lesson: Lesson, stored: Tensor, captions: Sequence[Sequence[str]]):
        self.config, self.label = lesson.config, lesson.label
        self.model, self.stored, self.captions = model, stored, captions
        self.conditioner, self.engine = lesson.listener.conditioner, model.engine
        self.first = lesson.first.detach().to(self.engine.device, torch.float32)
        self.vectors = self.first.clone().requires_grad_()
        self.size = float(lesson.known.square().mean().sqrt())  # of the numbers that it begins with: means of many are smaller
        self.conditioner.with_word(self.config.word, self.vectors)
        self.optimizer = torch.optim.AdamW([self.vectors], lr=self.config.lr * self.size, weight_decay=0.0)
        kinds = {key: PluginConfig.model_validate(model.header[key]["config"], extra="ignore") for key in ("denoiser", "schedule")}
        self.drawn_as = FitDiffusion(**kinds, prediction=model.header["prediction"], drop=0.0, times=Times(sampling="stratified"))

    def step(self, step: int) -> Tensor:
        """One optimizer step -> the loss, on the device; a DivergedError where its gradient is not finite."""
        count = self.config.batch
        reseed("token", self.config.seed, step)
        items = batch_items(self.config.seed, len(self.stored), count, step)
        random = generator("cpu", "template", self.config.seed, step)
        which = torch.rand(count, generator=random).tolist()
        loss = self._losses(items, which, ("token", self.config.seed, step)).mean()
        scale = HALF if self.engine.dtype == torch.float16 else 1.0
        (gradient,) = torch.autograd.grad(loss * scale, [self.vectors])
        if not bool(gradient.isfinite().all()):
            raise DivergedError(f"The gradient of step {step + 1} is not finite. Try a lower lr, or --precision fp32.")
        self.vectors.grad = gradient / scale
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * self.size * falling(step, self.config.steps)
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def measure(self, vectors: Tensor) -> float:
        """The loss of the pictures with these vectors in its place, at noises and times that never change."""
        self.conditioner.with_word(self.config.word, vectors)
        rows = torch.arange(MEASURED)
        which = [float(row // len(self.stored) * GOLDEN % 1) for row in rows.tolist()]  # every caption of a picture in turn
        times = validation_times(self.model.schedule, MEASURED)
        losses = [
            self._losses(rows[part] % len(self.stored), which[part], ("measured", part.start), times=times[part])
            for part in (slice(first, first + self.config.batch) for first in range(0, MEASURED, self.config.batch))
        ]
        self.conditioner.with_word(self.config.word, self.vectors)
        return float(torch.cat(losses).mean())

    def _losses(self, items: Tensor, which: Sequence[float], key: Sequence[object], *, times: Tensor | None = None) -> Tensor:
        """The loss of each of these items [B], under the class and, for a word, one of its captions, which a number in [0, 1) picks."""
        count, device = len(items), self.engine.device
        labels = torch.full((count,), self.label, device=device)
        whole = slice(0, count)
        drawn = draw(
            self.drawn_as,
            count,
            whole,
            self.stored[items.to(device)],
            labels,
            self.model.codec,
            self.model.schedule,
            self.engine,
            key,
            times=times,
        )
        said = [each[int(share * len(each))] for item, share in zip(items.tolist(), which, strict=True) if (each := self.captions[item])]
        known = {"text": Known(hear(self.conditioner, said, self.engine))} if said else {}
        return denoising_losses(self.model.network, drawn._replace(known=known), self.engine)

    def state(self) -> dict[str, Tensor]:
        """What a file holds: the vectors, and what the optimizer knows."""
        return {
            "vectors": self.vectors.detach(),
            **{f"optimizer.{name}": value for name, value in self.optimizer.state[self.vectors].items()},
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        with torch.no_grad():
            self.vectors.copy_(tensors["vectors"])
        known = {name.removeprefix("optimizer."): value for name, value in tensors.items() if name.startswith("optimizer.")}
        self.optimizer.state[self.vectors] = {name: value.to(self.vectors.device if value.ndim else "cpu") for name, value in known.items()}


def hear(conditioner: Any, texts: Sequence[str], engine: Engine) -> Condition:
    """The condition of texts [B, ...], each distinct one prepared and encoded once, with gradients to the words that are being learned."""
    once = list(dict.fromkeys(texts))
    rows = padded(conditioner.prepare(once, device=engine.device))
    said = conditioner.encode({name: value.to(engine.device) for name, value in rows.items()})
    places = torch.tensor([once.index(text) for text in texts], device=engine.device)
    return Condition(*(None if part is None else part[places] for part in said))


def falling(step: int, steps: int) -> float:
    """The share of the learning rate at a step: from 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2
