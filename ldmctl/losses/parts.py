"""The parts that a step of the first stage is made of: two networks under training, an adversary, a perceptual loss."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.attribution import expect, expect_shape, expect_slope
from ldmctl.blocks import Attention
from ldmctl.config.schemas.fit_ae import Adversarial, FitAE, holds_pictures
from ldmctl.console import Console
from ldmctl.errors import ConfigError, MissingError
from ldmctl.losses.adversary import Adversary, in_steps, in_whole_steps
from ldmctl.losses.equivariance import Equivariant
from ldmctl.losses.shares import Shares
from ldmctl.storage.initial import decoder_only, load_initial
from ldmctl.storage.record import config_of, record_of
from ldmctl.training import engine as engines
from ldmctl.training import order
from ldmctl.training.engine import Engine
from ldmctl.training.learner import Learner

ALIKE = 2  # times the side of a part: in whole pictures no larger than that, other norms gained nothing (docs/numbers.md)


@dataclass(frozen=True)
class Shown:
    """What a discriminator learns from: reconstructions [B,C,H,W] without gradient, their pictures, and their share of this rank's batch."""

    made: Tensor
    image: Tensor
    share: float


@dataclass(frozen=True)
class Parts:
    """What one step is made of, and what of it the discriminator is shown again."""

    model: Learner
    discriminator: Learner | None
    adversary: Adversary | None
    perceptual: Any
    shares: Shares | None
    shown: list[Shown] = field(default_factory=list)

    @property
    def learners(self) -> dict[str, Learner]:
        """By name, the published one first."""
        return {"autoencoder": self.model} | ({"discriminator": self.discriminator} if self.discriminator else {})

    @property
    def remembers(self) -> dict[str, nn.Module]:
        """Modules without optimizers, by name, whose buffers belong to the state."""
        found = {"adversary": self.adversary, "shares": self.shares}
        return {name: module for name, module in found.items() if module is not None}


def prepare(config: FitAE, folder: Path | None, engine: Engine, console: Console) -> tuple[FitAE, Parts, dict[str, Any]]:
    """(the config with its phases in steps, the parts of a step, what run.json keeps of how the run was started).

    A run that goes on in its `folder` keeps its losses and the steps of its phases; a new one needs none.
    """
    resumes = folder is not None and (folder / "state.safetensors").exists()
    asked, shares = config.perceptual, shares_of(config)
    known: dict[str, Any] = {}
    record: dict[str, Any] | None = None
    if folder is not None and resumes:
        known, written = config_of(folder), record_of(folder)
        record = {"shares": shares, "perceptual_skipped": known.get("perceptual") is None, **written}
    perceptual, config = build_perceptual(config, engine, console, record=record)
    before = record["shares"] if record else {}
    kept = {name: known["adversarial"][name] for name, share in shares.items() if before.get(name) == share}
    config = settled(config, kept, resumes=resumes)
    skipped = record["perceptual_skipped"] if record else asked is not None and config.perceptual is None
    begun = {"shares": {**before, **shares}, "perceptual_skipped": skipped}
    return config, build_parts(config, perceptual, engine, console=None if resumes else console), begun


def build_perceptual(config: FitAE, engine: Engine, console: Console, *, record: Mapping[str, Any] | None = None) -> tuple[Any, FitAE]:
    """(perceptual loss or None, config). Where its weights cannot be had and the config allows it, training continues without and says so.

    A resumed run, which has a `record`, keeps its losses: started without, it stays so; started with it, it needs the weights.
    """
    if config.perceptual is None:
        return None, config
    if record and record.get("perceptual_skipped") and config.losses.perceptual_missing == "skip":
        console.warn(
            f"This run was started WITHOUT the perceptual loss {config.perceptual.type!r}, because its weights were missing, and continues without it."
        )
        return None, config.model_copy(update={"perceptual": None})
    try:
        built = registry.build("perceptual", config.perceptual, image_channels=config.image.channels)
    except MissingError as error:
        if record is not None:
            raise type(error)(f"{error}\n  A resumed run keeps its losses, so this one cannot be left out now.") from None
        if config.losses.perceptual_missing == "error":
            raise type(error)(
                f"{error}\n  or train without it, for blurrier pictures: perceptual=null, or losses.perceptual_missing=skip"
            ) from None
        if not holds_pictures(config.losses, perceptual=False):
            raise type(error)(
                f"{error}\n  It cannot be left out either: without it nothing would hold a reconstruction to its picture."
            ) from None
        console.warn(f"Training continues WITHOUT the perceptual loss {config.perceptual.type!r}; expect blurrier pictures. {error}")
        return None, config.model_copy(update={"perceptual": None})
    return built.to(engine.device), config


def shares_of(config: FitAE) -> dict[str, float]:
    """The phases of the adversary that are given as shares of the run."""
    phases = {name: getattr(config.adversarial, name) for name in ("start", "warmup", "ramp")} if config.discriminator else {}
    return {name: value for name, value in phases.items() if isinstance(value, float) and 0 < value < 1}


def settled(config: FitAE, kept: Mapping[str, int], *, resumes: bool = False) -> FitAE:
    """The config with shares of the run turned into steps. They count once: a run that is prolonged has `kept` the steps of its phases."""
    if config.discriminator is None:
        return config
    adversarial = config.adversarial.model_copy(update=dict(kept))
    return config.model_copy(update={"adversarial": in_whole_steps(adversarial, length(adversarial, config.loop.steps, resumes=resumes))})


def length(adversarial: Adversarial, steps: int, *, resumes: bool) -> int:
    """The steps in which phases are counted. A run that is resumed and shortened may end before its discriminator begins: no error as in a new one."""
    if not resumes or adversarial.start == "auto":
        return steps
    return max(steps, in_steps(adversarial.start, steps) + in_steps(adversarial.warmup, steps) + 1)


def build_parts(config: FitAE, perceptual: Any, engine: Engine, *, console: Console | None = None) -> Parts:
    """The networks that are trained. Their initial weights are those that `init` names, or decided by loop.seed;
    without a console, which says where they are from, they are to be replaced by those of a state."""
    networks: dict[str, Any] = {}
    for kind, slot in (("autoencoder", config.autoencoder), ("discriminator", config.discriminator)):
        if slot is not None:
            order.reseed("weights", config.loop.seed, kind)
            networks[kind] = registry.build(kind, slot, image_channels=config.image.channels).to(engine.device).train()
            engines.recompute(networks[kind], config.loop.checkpointing, silent=kind == "discriminator")
    autoencoder, discriminator = networks["autoencoder"], networks.get("discriminator")
    if config.init is not None and console is not None:
        for line in load_initial(config.init, autoencoder, config):
            console.say(line)
    if console is not None and (said := meets_more(autoencoder, config)):
        console.warn(said)
    if config.train == "decoder":
        decoder_only(autoencoder)
    learns = any(parameter.requires_grad for parameter in autoencoder.parameters())
    if discriminator is not None and learns:
        try_out(discriminator, autoencoder, config, engine)
    if perceptual is not None and learns:
        try_perceptual(perceptual, config, engine)
    around = None
    if config.losses.equivariance_weight:
        keys = config.losses
        around = Equivariant(autoencoder, weight=keys.equivariance_weight, share=keys.equivariance_share, squared=keys.pixel == "l2")
    goals, adversarial = config.losses.shares, config.adversarial
    if goals is not None:
        adversarial = adversarial.model_copy(update={"weight": goals.get("adversarial", 0.0)})
    return Parts(
        model=Learner(autoencoder, config.loop, engine, around=around, alters=config.train == "all"),
        discriminator=Learner(discriminator, config.loop, engine, averaged=False, lr=config.adversarial.lr, betas=config.adversarial.betas)
        if discriminator
        else None,
        adversary=Adversary(adversarial, length(adversarial, config.loop.steps, resumes=console is None)).to(engine.device)
        if discriminator
        else None,
        perceptual=perceptual,
        shares=Shares().to(engine.device) if goals is not None else None,
    )


def meets_more(autoencoder: nn.Module, config: FitAE) -> str | None:
    """Why whole pictures are not to an autoencoder what the parts are that it learns from, and the keys against it; None where they are, or nearly."""
    side, size, keys = config.image.trained, config.image.size, type(config.autoencoder).model_fields
    reasons = {
        "norm=layer": (
            "its GroupNorms meet other means and variances",
            any(isinstance(part, nn.GroupNorm) for part in autoencoder.modules()),
        ),
        "attention=false": ("its attention meets more pixels", any(isinstance(part, Attention) for part in autoencoder.modules())),
    }
    met = {key: why for key, (why, there) in reasons.items() if there}
    if size <= ALIKE * side or not met:
        return None
    ways = [f"autoencoder.{key}" for key in met if key.partition("=")[0] in keys]
    way = f"; not with {' '.join(ways)}" if ways else ""
    return (
        f"The autoencoder learns from parts of {side}x{side} pixels. In whole pictures of {size}x{size} {' and '.join(met.values())}, "
        f"so they may turn out worse than the parts{way}."
    )


def try_out(discriminator: nn.Module, autoencoder: Any, config: FitAE, engine: Engine) -> None:
    """What would only be noticed when the adversarial phase begins: pictures too small for it, an autoencoder without its last layer."""
    if config.adversarial.balance == "last-layer" and not hasattr(autoencoder, "last_layer"):
        raise ConfigError(
            f"adversarial.balance=last-layer needs an autoencoder that has one, {config.autoencoder.type} has not. Take adversarial.balance=image."
        )
    if config.adversarial.balance == "last-layer" and not autoencoder.last_layer.requires_grad:
        raise ConfigError(
            f"adversarial.balance=last-layer needs a last layer that learns, that of {config.autoencoder.type} is frozen. Take adversarial.balance=image."
        )
    size, learning = config.image.trained, discriminator.training
    blank = torch.zeros(1, config.image.channels, size, size, device=engine.device)
    maps = discriminator.eval()(blank)
    expect(isinstance(maps, list) and maps, discriminator, f"forward gave {type(maps).__name__}, not a list of maps")
    for each in maps:
        expect_shape(each, (1, 1, None, None), discriminator, "forward (a map of logits)", like=blank)
        expect_slope(each, discriminator, "forward")
    discriminator.train(learning)


def try_perceptual(perceptual: Any, config: FitAE, engine: Engine) -> None:
    """What would only be noticed in the first step, when the run folder is made: pictures too small for the perceptual loss."""
    blank = torch.zeros(1, config.image.channels, config.image.trained, config.image.trained, device=engine.device)
    with engine.autocast():
        distance = perceptual(blank.clone().requires_grad_(), blank)
    expect_shape(distance, (1,), perceptual, "forward", like=blank)
    if config.losses.perceptual_weight > 0:
        expect_slope(distance, perceptual, "forward")
