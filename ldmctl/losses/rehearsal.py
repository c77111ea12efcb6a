"""A step of the first stage on parts of its own, to find out what it needs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.losses.objective import backward, teach_again
from ldmctl.losses.parts import build_parts
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.loading import on_device
from ldmctl.training.engine import Engine
from ldmctl.training.memory import largest_micro, release


def find_micro(config: FitAE, perceptual: Any, engine: Engine, train: Pictures, share: int) -> int:
    """The largest micro-batch that one real step has room for."""
    found = try_micro(config, perceptual, engine, train.batch([(index % len(train), index) for index in range(share)]).image)
    release(engine)
    return found


def try_micro(config: FitAE, perceptual: Any, engine: Engine, pictures: Tensor) -> int:
    """The same for a rank's `pictures`, by parts of its own."""
    step = rehearsal(config, perceptual, engine)
    again = config.discriminator is not None and config.adversarial.updates > 1
    kept = torch.empty(2 * again, *pictures.shape, device=engine.device)  # what the discriminator is shown again, of all micro-batches
    found = largest_micro(lambda count: step(pictures[:count]), len(pictures), engine, memory=config.machine.memory)
    del kept
    return found


def rehearsal(config: FitAE, perceptual: Any, engine: Engine) -> Callable[[Tensor], None]:
    """A step on pictures uint8 [B,C,H,W] with all that a step can have: both networks, all losses, optimizers and averages; made of
    parts of its own, which are thrown away."""
    always = config.adversarial.model_copy(update={"start": 0, "warmup": 0, "ramp": 0})
    config = config.model_copy(update={"adversarial": always})
    parts = build_parts(config, perceptual, engine)

    def step(pictures: Tensor) -> None:
        parts.shown.clear()  # where the step before found no room
        backward(parts, config, on_device(pictures, engine), 0, 1.0, engine, last=True)
        for learner in parts.learners.values():
            learner.update(0)
            learner.after_step()
            if learner.average:
                learner.track(0)
        for _ in teach_again(parts, 0, engine):
            assert parts.discriminator is not None
            parts.discriminator.update(0)

    return step
