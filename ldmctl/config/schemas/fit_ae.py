"""The keys of `ldmctl fit-ae`."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from ldmctl.config.base import Config, Free, Noted, Place, PluginConfig, Slot, before, value_before
from ldmctl.config.schemas.shared import Beta, Loop, Machine, Pictures


class Losses(Config):
    """What a reconstruction is measured by while training."""

    pixel: Literal["l1", "l2"] = Field("l1", description="l1: mean absolute error, l2: mean squared error")
    pixel_weight: float = Field(1.0, ge=0, description="weight of the pixel loss")
    perceptual_weight: float = Field(1.0, ge=0, description="weight of the perceptual loss, where there is one")
    shares: dict[Literal["pixel", "perceptual", "adversarial"], NonNegativeFloat] | None = Field(
        None,
        description="instead of weights, the shares of the losses in the gradient at the reconstruction, measured and kept up while "
        "training, such as {pixel: 0.3, perceptual: 0.6, adversarial: 0.1}; null: weights",
    )
    perceptual_missing: Literal["error", "skip"] = Field(
        "error", description="when the weights of the perceptual plugin cannot be had: stop (exit 4), or train without it and say so"
    )
    equivariance_weight: float = Field(
        0.0,
        ge=0,
        description="weight of a penalty that makes scaled and turned latents decode to scaled and turned pictures (EQ-VAE); 0: off",
    )
    equivariance_share: float = Field(0.25, gt=0, le=1, description="share of each batch that the penalty looks at")

    @field_validator("shares")
    @classmethod
    def _something_holds_it_to_its_picture(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        if shares is not None and not shares.get("pixel", 0) + shares.get("perceptual", 0) > 0:
            raise ValueError("neither pixel nor perceptual has a share: nothing would hold a reconstruction to its picture")
        return shares


def holds_pictures(losses: Losses, *, perceptual: bool) -> bool:
    """Whether a loss compares reconstructions with their pictures, with or without a perceptual one."""
    if losses.shares is not None:
        return losses.shares.get("pixel", 0) > 0 or (perceptual and losses.shares.get("perceptual", 0) > 0)
    return losses.pixel_weight > 0 or losses.equivariance_weight > 0 or (perceptual and losses.perceptual_weight > 0)


BALANCE = ("balance_every", "balance_smoothing", "balance_max", "balance_growth")  # keys that losses.shares takes the place of

StepOrShare = Annotated[int | float, Field(ge=0)]


class Adversarial(Config):
    """How the discriminator's opinion is learned and weighed; used when `discriminator` is set."""

    loss: Literal["hinge", "vanilla", "lsgan"] = Field(
        "hinge",
        description="hinge (arXiv:1705.02894), vanilla: the non-saturating one (arXiv:1406.2661), lsgan: least squares (arXiv:1611.04076)",
        json_schema_extra=Noted,
    )
    weight: float = Field(
        0.1,  # louder, the discriminator was defeated within a hundred steps (benchmarks/adversarial.py)
        ge=0,
        description="size of its gradient where it is balanced, relative to that of the other losses",
        json_schema_extra=Noted,
    )
    start: StepOrShare | Literal["auto"] = Field(
        0.5, description="first step of the discriminator: a step (1000), a share of the run (0.5), or auto: when the losses level off"
    )
    warmup: StepOrShare = Field(0.02, description="how long it then learns alone: steps or a share of the run")
    ramp: StepOrShare = Field(
        0.05, description="how long its weight then rises from 0: steps or a share of the run", json_schema_extra=Noted
    )
    lr: PositiveFloat | None = Field(None, description="learning rate of the discriminator; null: loop.lr", json_schema_extra=Noted)
    betas: tuple[Beta, Beta] | None = Field(
        None, description="AdamW's averages for the discriminator; null: loop.betas", json_schema_extra=Noted
    )
    updates: PositiveInt = Field(
        1,
        description="updates of the discriminator in a step, all by the same pictures and reconstructions; penalties on its gradient (R1) are in the first",
        json_schema_extra=Noted,
    )
    balance: Literal["image", "last-layer", "none"] = Field(
        "image",
        description="where gradient norms are compared: at the reconstruction, at the autoencoder's last layer, or nowhere",
        json_schema_extra=Noted,
    )
    balance_every: PositiveInt = Field(1, description="steps between measurements of the norms", json_schema_extra=Noted)
    balance_smoothing: float = Field(0.9, ge=0, lt=1, description="decay of the averaged ratio of the norms", json_schema_extra=Noted)
    balance_max: PositiveFloat = Field(1e4, description="largest ratio of the norms", json_schema_extra=Noted)
    balance_growth: PositiveFloat | None = Field(
        10.0,
        description="largest ratio of the norms relative to that of its first steps; null: no bound",
        json_schema_extra=Noted | before(None),
    )
    advantage: float = Field(
        0.1,
        ge=0,
        le=1,
        description="what a discriminator must be ahead of one that cannot tell (1 - its loss / the loss of the best constant) for its "
        "whole weight; one that is ahead less is heard less, a beaten one not at all. 0: it always has its whole weight",
        json_schema_extra=Noted | before(0.0),
    )
    augment: list[Literal["colour", "translation", "cutout"]] = Field(
        [],
        description="what pictures go through before the discriminator sees them, real and made alike (DiffAugment)",
        json_schema_extra=Noted,
    )
    r1: float = Field(0.0, ge=0, description="gamma of the gradient penalty on real pictures (R1); 0: off", json_schema_extra=Noted)
    r1_every: PositiveInt = Field(16, description="steps between gradient penalties, each weighed so much more", json_schema_extra=Noted)
    lecam: float = Field(
        0.0,
        ge=0,
        description="weight of the penalty that keeps logits near their averages (LeCam), for few pictures; 0: off",
        json_schema_extra=Noted,
    )

    @field_validator("start", "warmup", "ramp")
    @classmethod
    def _step_or_share(cls, value: int | float | str) -> int | float | str:
        if isinstance(value, str):
            return value
        if value >= 1 and not float(value).is_integer():
            raise ValueError("a number of 1 or more counts steps and must be whole; below 1 it is a share of the run")
        return int(value) if value >= 1 else value


class FitAE(Pictures):
    """ldmctl fit-ae: fit an autoencoder to a folder of pictures."""

    verb: ClassVar[str] = "fit-ae"
    autoencoder: Annotated[PluginConfig, Slot("autoencoder", default="vae")]
    perceptual: Annotated[PluginConfig | None, Slot("perceptual")] = None
    discriminator: Annotated[PluginConfig | None, Slot("discriminator")] = None
    losses: Losses = Field(Losses(), json_schema_extra=Noted)
    adversarial: Adversarial = Adversarial()
    init: str | None = Field(
        None,
        description="weights to start from: a run folder (runs/ae, runs/ae@best) or a folder saved by diffusers",
        json_schema_extra=Place,
    )
    train: Literal["all", "decoder"] = Field(
        "all", description="decoder: the encoder and its codes stay as they are, so latents stay valid"
    )
    tracker: Annotated[PluginConfig | None, Slot("tracker")] = Field(None, json_schema_extra=Free)
    loop: Loop = Loop()
    machine: Machine = Machine()

    @model_validator(mode="after")
    def _something_holds_a_reconstruction_to_its_picture(self) -> Self:
        if not holds_pictures(self.losses, perceptual=self.perceptual is not None):
            raise ValueError(
                "nothing holds a reconstruction to its picture: give the pixel loss a weight or a share, or take a perceptual loss"
            )
        return self

    @model_validator(mode="after")
    def _shares_name_each_loss(self) -> Self:
        if self.losses.shares is None:
            return self
        weights = {"losses.pixel_weight": self.losses.pixel_weight, "losses.perceptual_weight": self.losses.perceptual_weight}
        weights |= {"adversarial.weight": self.adversarial.weight}
        usual = {f"losses.{name}_weight": Losses.model_fields[f"{name}_weight"].default for name in ("pixel", "perceptual")}
        usual |= {"adversarial.weight": Adversarial.model_fields["weight"].default}
        if named := [name for name, weight in weights.items() if weight != usual[name]]:
            raise ValueError(f"losses.shares takes the place of {named[0]}, which has no effect: leave it away, or take losses.shares=null")
        there = {"perceptual": self.perceptual, "adversarial": self.discriminator}
        if missing := [name for name, slot in there.items() if slot is not None and name not in self.losses.shares]:
            raise ValueError(f"losses.shares says nothing of {' and '.join(missing)}: give each loss its share, 0 to leave it out")
        if self.discriminator is not None:
            self._shares_take_the_place_of_the_balance()
        return self

    def _shares_take_the_place_of_the_balance(self) -> None:
        """A ValueError where a key of the balance is neither at its default nor what runs did that were made before it."""
        if self.adversarial.balance != "image":
            raise ValueError(
                f"losses.shares measures all losses at the reconstruction, so adversarial.balance={self.adversarial.balance} has no effect: "
                "take adversarial.balance=image, or losses.shares=null"
            )
        usual = {name: (field.default, value_before(field)) for name, field in Adversarial.model_fields.items() if name in BALANCE}
        if named := [name for name, values in usual.items() if getattr(self.adversarial, name) not in values]:
            raise ValueError(
                f"losses.shares takes the place of the balance, so adversarial.{named[0]} has no effect: leave it away, or take losses.shares=null"
            )

    @model_validator(mode="after")
    def _autoencoders_are_not_sharded(self) -> Self:
        if self.machine.parallel == "fsdp":
            raise ValueError("machine.parallel: fsdp shares large denoisers among devices (fit-diffusion); fit-ae trains with ddp")
        return self
