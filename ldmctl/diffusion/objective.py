"""What one step of the second stage minimises: noised latents, what the network should say of them, and the loss."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ldmctl.attribution import expect_slope
from ldmctl.config.schemas.fit_diffusion import Drops, FitDiffusion, TrainingNoise
from ldmctl.diffusion.conditions import SLOTS, painter_of
from ldmctl.diffusion.denoise import clean_from
from ldmctl.diffusion.process import draw_times, noised, target, timestep
from ldmctl.diffusion.self_conditioning import HALF, Marginal, as_heard
from ldmctl.diffusion.weighting import binned, log_level, loss_weight, positions, validation_times, with_uncertainty
from ldmctl.latents.codec import Codec
from ldmctl.latents.conditions import NOTHING, Known, Several, of_rows, on_device
from ldmctl.latents.reader import Latents
from ldmctl.pictures.batches import evenly
from ldmctl.training.engine import Engine
from ldmctl.training.learner import Learner
from ldmctl.training.order import generator

VALIDATED = 512  # held-out latents that a validation looks at
CHUNK = 64  # rows of the global batch whose noise is drawn together, whichever rank keeps them


class Drawn(NamedTuple):
    """What one step learns from, of one rank or micro-batch."""

    x: Tensor  # noised latents [B,c,h,w]
    timesteps: Tensor  # timesteps [B]
    target: Tensor  # [B,c,h,w]
    labels: Tensor  # [B], -1 when unknown
    dropped: Tensor  # bool [B]
    weight: Tensor  # of each loss [B]
    level: Tensor  # ln(sigma / alpha) [B]
    known: dict[str, Known] = {}  # what else is known of them
    left: dict[str, Tensor] = {}  # bool [B], by slot: trained without that one alone
    marginal: Marginal | None = None  # where the network hears its own estimate

    def part(self, rows: slice) -> Self:
        """Some rows of it."""
        x, timesteps, aim, labels, dropped, weight, level = (each[rows] for each in self[:7])
        left = {slot: each[rows] for slot, each in self.left.items()}
        marginal = None if self.marginal is None else self.marginal.part(rows)
        return type(self)(x, timesteps, aim, labels, dropped, weight, level, of_rows(self.known, rows), left, marginal)

    @property
    def given(self) -> Any:
        """What a network is given of them."""
        return {"label": self.labels, **self.known} if self.known else self.labels

    @property
    def without(self) -> Any:
        """What it does not hear of that."""
        return (
            self.dropped
            if not self.left
            else {slot: self.dropped | self.left[slot] if slot in self.left else self.dropped for slot in SLOTS}
        )


def rows_read(rows: slice, count: int) -> slice:
    """The rows that a rank reads of a batch: its own, to whole chunks."""
    return slice(rows.start // CHUNK * CHUNK, min(-(-rows.stop // CHUNK) * CHUNK, count))


def draw(
    config: FitDiffusion,
    count: int,
    rows: slice,
    stored: Tensor,
    labels: Tensor,
    codec: Codec,
    schedule: Any,
    engine: Engine,
    key: Sequence[object],
    *,
    times: Tensor | None = None,
    known: Mapping[str, Known] | None = None,
    painter: Any = None,
    recalled: float = HALF,
) -> Drawn:
    """Noised latents, times and targets of those `rows` of a batch of `count` items; what is `stored` of them, their `labels` and what
    else is `known` were read for `rows_read`.

    `key` decides all that is random in the whole batch, but for `times` [count] when they are given. A `painter` is the conditioner
    that hears a part of the latents themselves. With self-conditioning the network hears its own estimate in a share `recalled` of steps.
    """
    device, read = engine.device, rows_read(rows, count)
    random = generator(device, *key)
    t = draw_times(schedule, positions(config.times, count, random, device)) if times is None else on(times, device)
    dropped = torch.rand(count, generator=random, device=device) < config.drop
    clean, noise, more, painted = [], [], [], []
    for start in range(read.start, read.stop, CHUNK):
        random = generator(device, *key, start)
        clean.append(codec.draw(stored[start - read.start : start - read.start + CHUNK], random))
        e = torch.randn(clean[-1].shape, generator=random, device=device)
        if config.noise.offset:
            e = e + config.noise.offset * torch.randn(
                (*e.shape[:2], 1, 1), generator=generator(device, *key, start, "offset"), device=device
            )
        noise.append(e)
        if config.noise.perturbation:
            more.append(torch.randn(e.shape, generator=generator(device, *key, start, "perturbation"), device=device))
        if painter is not None:
            painted.append(painter.draw(codec.whiten(clean[-1]), generator(device, *key, start, "picture")))
    mine = slice(rows.start - read.start, rows.stop - read.start)
    others = of_rows(known or {}, mine)
    if painted:
        others["picture"] = Known({name: torch.cat([each[name] for each in painted])[mine] for name in painted[0]})
    x, e, t = codec.whiten(torch.cat(clean)[mine]), torch.cat(noise)[mine], t[rows]
    seen = e + config.noise.perturbation * torch.cat(more)[mine] if more else e
    return Drawn(
        noised(schedule, x, seen, t),
        timestep(schedule, t),
        target(config.prediction, schedule, x, e, t),
        labels[mine],
        dropped[rows],
        loss_weight(config.weighting, config.prediction, schedule, t),
        log_level(schedule, t),
        others,
        {slot: without[rows] for slot, without in alone(config, count, device, key).items()},
        Marginal(config.prediction, *schedule.marginal(t)) if config.self_conditioning and hears_itself(recalled, key) else None,
    )


def hears_itself(share: float, key: Sequence[object]) -> bool:
    """Whether the network hears its own estimate in the step with this key, as it does in a share of all."""
    return bool(torch.rand((), generator=generator("cpu", *key, "self-conditioning")) < share)


def alone(config: FitDiffusion, count: int, device: torch.device, key: Sequence[object]) -> dict[str, Tensor]:
    """Which of `count` items are trained without one condition, bool [count] by slot, where that is asked for."""
    drops = {slot: config.conditions.dropped(slot) for slot in config.conditions.slots}
    return {
        slot: torch.rand(count, generator=generator(device, *key, "drop", slot), device=device) < share
        for slot, share in drops.items()
        if share
    }


def on(times: Tensor, device: torch.device) -> Tensor:
    """Times on a device, float64 where it has that."""
    return times.to(device, torch.float32 if device.type == "mps" else times.dtype)


def denoising_losses(network: Any, drawn: Drawn, engine: Engine) -> Tensor:
    """Mean squared error of the prediction of each item, float32 [B]."""
    own = {} if drawn.marginal is None else {"estimate": estimate_of(network, drawn, drawn.marginal, engine)}
    with engine.autocast():
        prediction = network(drawn.x, drawn.timesteps, drawn.given, drawn.without, **own)
    return (prediction.float() - drawn.target).square().flatten(1).mean(1)


@torch.no_grad()
def estimate_of(network: Any, drawn: Drawn, marginal: Marginal, engine: Engine) -> Tensor:
    """What the network says is clean of the same noised latents, float32 [B,c,h,w], without an estimate.

    In an autocast of its own: the weights that one has cast without a graph are not those to learn by.
    """
    with engine.autocast():
        said = network(drawn.x, drawn.timesteps, drawn.given, drawn.without)
    return as_heard(clean_from(marginal.prediction, drawn.x, said.float(), marginal.alpha, marginal.sigma))


def backward(learners: Mapping[str, Learner], drawn: Drawn, share: float, engine: Engine) -> dict[str, Tensor]:
    """Add the gradients of a micro-batch, `share` of this rank's batch -> its losses: as they are, and as they count."""
    model, uncertainty = learners["diffusion"], learners.get("uncertainty")
    losses = denoising_losses(model.network, drawn, engine)
    expect_slope(losses, getattr(model.module, "denoiser", model.module), "forward")
    if uncertainty is None:
        counted = losses * drawn.weight
        total = counted.mean() * model.scale
    else:
        counted, own = with_uncertainty(losses, uncertainty.network(drawn.level))
        total = counted.mean() * model.scale + own.mean() * uncertainty.scale
    (total * share).backward()
    return {"loss": losses.mean(), "loss_weighted": counted.mean()}


def validate(
    config: FitDiffusion, network: Any, val: Latents, codec: Codec, schedule: Any, engine: Engine, several: Several = NOTHING
) -> dict[str, float]:
    """The unweighted loss on held-out latents, evenly over the split, in all and by noise level; empty without any.

    Which latents, their noise and their times never change. With self-conditioning the network hears its own estimate, as in sampling.
    """
    rows = evenly(len(val), VALIDATED)
    count = len(rows)
    if not count:
        return {}
    drop = 1.0 if config.drop == 1 else 0.0  # with what was learned: all conditions, or none ever
    heard = config.conditions.model_copy(update={"drop": Drops(label=0, text=0, map=0, picture=0)})
    still = config.model_copy(update={"drop": drop, "noise": TrainingNoise(), "conditions": heard})
    painter = painter_of(network)
    times, losses, levels = validation_times(schedule, count), [], []
    for first in range(0, count, CHUNK):
        items = rows[first : first + CHUNK]
        stored, labels = val.stored(items).to(engine.device), val.labels[items].to(engine.device)
        key, here = ("validation", first), times[first : first + CHUNK]
        known = on_device(several.known(items), engine.device)
        drawn = draw(
            still,
            len(items),
            slice(0, len(items)),
            stored,
            labels,
            codec,
            schedule,
            engine,
            key,
            times=here,
            known=known,
            painter=painter,
            recalled=1.0,
        )
        losses.append(denoising_losses(network, drawn, engine))
        levels.append(drawn.level)
    return {"val/loss": float(torch.cat(losses).mean()), **binned(torch.cat(losses), torch.cat(levels))}
