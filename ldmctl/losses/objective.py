"""What one step of the first stage minimises."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ldmctl.attribution import expect, expect_shape, expect_slope
from ldmctl.config.schemas.fit_ae import FitAE, Losses
from ldmctl.evaluation.metrics import psnr
from ldmctl.latents.codec import Codec
from ldmctl.losses.adversary import Adversary
from ldmctl.losses.balance import Balance
from ldmctl.losses.parts import Parts, Shown
from ldmctl.pictures.batches import Pictures, evenly
from ldmctl.pictures.images import crop_to, pad_to
from ldmctl.pictures.loading import on_device
from ldmctl.protocols import Reconstruction
from ldmctl.training.engine import Engine
from ldmctl.training.learner import Learner

Value = TypeVar("Value", Tensor, float)
VALIDATED = 128  # pictures of the held-out split that a validation looks at
FEWEST = 32  # of them where training sees parts of pictures, and whole ones cost many times a step


def backward(parts: Parts, config: FitAE, image: Tensor, step: int, share: float, engine: Engine, *, last: bool) -> dict[str, Tensor]:
    """Leave the gradients of one micro-batch [B,C,H,W], which is `share` of this rank's batch, with both learners -> losses and facts."""
    model, discriminator, adversary = parts.model, parts.discriminator, parts.adversary
    autoencoder: Any = model.module
    weight = {**weights_of(config.losses), "adversarial": adversary.weight(step) if adversary else 0.0}
    with model.backward_context(last=last):
        with engine.autocast():
            reconstruction = model.network(pad_to(image, autoencoder.factor))
        check_reconstruction(reconstruction, image, autoencoder)
        expect_slope(reconstruction.image, autoencoder, "forward")
        made = crop_to(reconstruction.image.float(), (image.shape[-2], image.shape[-1]))
        losses = picture_losses(made, image, config.losses, parts.perceptual, engine)
        if adversary is not None and discriminator is not None and weight["adversarial"]:
            with engine.autocast():
                losses["adversarial"] = adversary.generator_loss(discriminator.module, made)
        if adversary is not None:
            adversary.notice(losses["perceptual" if weight["perceptual"] > 0 and "perceptual" in losses else "pixel"], share)
        if parts.shares is not None:
            heard = adversary.heard() if adversary else 1.0
            gradient, facts = parts.shares.gradient(losses, weight, made, share=share, scale=model.scale, heard=heard)
        else:
            balanced, last_layer = (adversary or Balance("none")).gradient, getattr(autoencoder, "last_layer", None)
            gradient, facts = balanced(losses, weight, made, step=step, share=share, scale=model.scale, last_layer=last_layer)
        penalties = [value.float() for value in reconstruction.penalties.values() if value.requires_grad]
        scale = model.scale * share
        torch.autograd.backward([made, *penalties], [gradient * scale, *(scale for _ in penalties)])
    scales = {name: facts.get(f"{name}_scale", given) for name, given in weight.items()}
    terms = {name: scales[name] * value.detach() for name, value in losses.items()} | dict(reconstruction.penalties)
    reported = {"loss": sum(terms.values(), torch.zeros(())), **titled(terms | facts, parts.perceptual), **reconstruction.facts}
    if adversary is not None:
        reported["adversarial_weight"] = made.new_full((), weight["adversarial"])
        if discriminator is not None and adversary.trains_discriminator(step):
            shown = Shown(made.detach(), image, share)
            if adversary.config.updates > 1:
                parts.shown.append(shown)
            reported |= teach(discriminator, adversary, shown, step, engine, last=last)
    return reported


def teach(
    discriminator: Learner, adversary: Adversary, shown: Shown, step: int, engine: Engine, *, last: bool, again: bool = False
) -> dict[str, Tensor]:
    """Leave the gradients of what a micro-batch was made of with the discriminator -> its loss and facts."""
    with discriminator.backward_context(last=last):
        for parameter in discriminator.parameters:  # not all of the module: a part of it may be frozen
            parameter.requires_grad_(True)
        loss, facts = adversary.discriminator_loss(
            discriminator.network, shown.made, shown.image, step=step, share=shown.share, autocast=engine.autocast, again=again
        )
        (loss * discriminator.scale * shown.share).backward()
    return {"discriminator/loss": loss.detach(), **{f"discriminator/{name}": value for name, value in facts.items()}}


def teach_again(parts: Parts, step: int, engine: Engine) -> Iterator[None]:
    """Once for each further update of the discriminator in this step: its gradients by all micro-batches of it."""
    shown = parts.shown.copy()
    parts.shown.clear()
    if parts.discriminator is None or parts.adversary is None:
        return
    for _ in range(parts.adversary.config.updates - 1):
        for number, each in enumerate(shown):
            teach(parts.discriminator, parts.adversary, each, step, engine, last=number == len(shown) - 1, again=True)
        yield


def check_reconstruction(made: Any, image: Tensor, autoencoder: Any) -> None:
    """A PluginError that names the autoencoder, unless it gave a picture as large as it was given, and scalars beside it."""
    expect(isinstance(made, Reconstruction), autoencoder, f"forward gave {type(made).__name__}, not a Reconstruction")
    height, width = (-(-side // autoencoder.factor) * autoencoder.factor for side in image.shape[2:])
    expect_shape(made.image, (*image.shape[:2], height, width), autoencoder, "forward", like=image)
    for name, value in made.penalties.items():
        expect_shape(value, (), autoencoder, f"forward (penalty {name!r})")


def picture_losses(made: Tensor, image: Tensor, losses: Losses, perceptual: Any, engine: Engine) -> dict[str, Tensor]:
    """Scalars by name, not weighted, of a reconstruction [B,C,H,W] against the picture."""
    gap = made - image
    out = {"pixel": gap.abs().mean() if losses.pixel == "l1" else gap.square().mean()}
    if perceptual is not None:
        with engine.autocast():
            distance = perceptual(made, image)
        expect_shape(distance, (len(made),), perceptual, "forward", like=made)
        out["perceptual"] = distance.float().mean()
    return out


def titled(values: Mapping[str, Value], perceptual: Any) -> dict[str, Value]:
    """The same, with the perceptual loss under its own name: what is not LPIPS is not called so."""
    title = getattr(perceptual, "title", "perceptual")
    return {name.replace("perceptual", title): value for name, value in values.items()}


def validate(
    autoencoder: nn.Module, val: Pictures, losses: Losses, perceptual: Any, engine: Engine, at_once: int, patches: float = 1.0
) -> dict[str, float]:
    """Losses and PSNR of held-out pictures, spread evenly, so many at a time; empty without any.

    They are `VALIDATED` at most. Where a picture has so many `patches` of those that training sees, they are fewer by as much, down to `FEWEST`.
    """
    sums: dict[str, float] = {}
    rows = evenly(len(val), max(min(FEWEST, VALIDATED), round(VALIDATED / patches)))
    for some in rows.split(at_once) if len(rows) else ():
        batch = val.batch([(index, None) for index in some.tolist()])
        image = on_device(batch.image, engine)
        made = Codec(autoencoder, engine).reconstruct(image)
        terms = {name: float(value) for name, value in picture_losses(made, image, losses, perceptual, engine).items()}
        terms["psnr"] = float(psnr(made, image).mean())
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value * len(image) / len(rows)
    if not sums:
        return {}
    decibels = sums.pop("psnr")
    values = titled({**sums, "loss": judged_loss(sums, losses), "psnr": decibels}, perceptual)
    return {f"val/{name}": value for name, value in values.items()}


def weights_of(losses: Losses) -> dict[str, float]:
    """The weights of the losses on the picture by name, or the shares that stand in their place."""
    if losses.shares is not None:
        return {"pixel": losses.shares.get("pixel", 0.0), "perceptual": losses.shares.get("perceptual", 0.0)}
    return {"pixel": losses.pixel_weight, "perceptual": losses.perceptual_weight}


def judged_loss(values: Mapping[str, float], losses: Losses) -> float:
    """One number for the losses by name: their weighted sum; with shares their weighted geometric mean, which no loss rules by its scale."""
    weights = {name: weight for name, weight in weights_of(losses).items() if name in values and weight > 0}
    if losses.shares is None:
        return sum(weight * values[name] for name, weight in weights.items())
    if min(values[name] for name in weights) <= 0:
        return 0.0 if all(math.isfinite(values[name]) for name in weights) else math.nan
    return math.exp(sum(weight * math.log(values[name]) for name, weight in weights.items()) / sum(weights.values()))
