"""Every key of every verb, with its default and what it means. Readable without torch.

A key marked `Free` may change when a run is resumed, one marked `Noted` from the next step on, and one marked `Place` names an input
that is known by its fingerprint; any other change is refused.
Slots are filled by plugins, whose own keys stand in their `Config`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from ldmctl.config.base import Config, Free, Noted, Place, PluginConfig, Slot, before
from ldmctl.errors import did_you_mean

Beta = Annotated[float, Field(ge=0, lt=1)]


class Compute(Config):
    """Where the work runs and in which numbers."""

    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="auto takes cuda, then mps, then cpu", json_schema_extra=Free)
    precision: Literal["auto", "bf16", "fp32", "fp16"] = Field("auto", description="auto: bf16 where the hardware has it, else fp32")


class Machine(Compute):
    """Where training runs."""

    precision: Literal["auto", "bf16", "fp32", "fp16"] = Field(
        "auto", description="auto: bf16 where the hardware has it, else fp32", json_schema_extra=Noted
    )
    devices: PositiveInt = Field(1, description="processes on this machine, one device each", json_schema_extra=Free)
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="what several devices share. ddp: the batch; fsdp: also the denoiser, its optimizer and averages, for those "
        "too large for one device. What is learned is the same",
        json_schema_extra=Free,
    )
    memory: PositiveFloat | None = Field(
        None, description="GiB that loop.micro=auto may fill on each device; null: nine tenths of what is free", json_schema_extra=Free
    )


class Coding(Compute):
    """Where pictures are encoded or decoded."""

    tile: PositiveInt | None = Field(
        1024,
        description="side of the square tiles, pixels, in which larger pictures are encoded and decoded; null: always whole",
        json_schema_extra=Free,
    )


class Image(Config):
    """How every picture is prepared, for training, encoding and evaluation alike."""

    size: int = Field(128, ge=4, le=4096, description="side of the square picture, pixels")
    channels: Literal[1, 3, 4] = Field(3, description="1 grey, 3 colour, 4 colour and alpha")
    crop: Literal["center", "random"] = Field(
        "center", description="which square of a picture that is not square; random only while training", json_schema_extra=Noted
    )
    flip: bool = Field(False, description="mirror half of the pictures while training", json_schema_extra=Noted)
    patch: int | None = Field(
        None,
        ge=4,
        le=4096,
        description="side of the square part of a larger picture that fit-ae trains on, pixels, another one each time; null: the whole picture",
        json_schema_extra=Noted,
    )
    background: str = Field("white", description="colour under transparent pixels: a name or #rrggbb")
    profile: Literal["srgb", "keep"] = Field(
        "srgb",
        description="srgb: colours are brought to sRGB by the profile that a picture carries; keep: profiles are ignored, "
        "as in runs and caches made before there was this key",
        json_schema_extra=before("keep"),
    )
    smallest: int = Field(
        2,
        ge=2,
        le=4096,
        description="pictures with fewer pixels on the shorter side are left out; above 2 every file is opened once to find them",
    )
    max_pixels: PositiveInt = Field(
        200_000_000,
        description="pictures with more pixels than this count as unreadable, so that none fills the memory",
        json_schema_extra=Free,
    )

    @property
    def trained(self) -> int:
        """Side of what an autoencoder trains on, pixels."""
        return min(self.patch or self.size, self.size)

    def preparation(self) -> dict[str, Any]:
        """The keys that decide what an encoder is given of a picture, as JSON has them."""
        return self.model_dump(mode="json", exclude={"crop", "flip", "patch", "smallest", "max_pixels"})

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, background: str) -> str:
        from PIL import ImageColor

        try:
            ImageColor.getrgb(background)
        except ValueError:
            near = did_you_mean(background, ImageColor.colormap)
            raise ValueError(f"not a colour; write a name such as white, or #rrggbb.{near}") from None
        return background


class Keep(Config):
    """Which snapshots of the EMA weights stay in snapshots/."""

    every: NonNegativeInt = Field(0, description="one each so many steps, 0 for none")
    last: NonNegativeInt = Field(0, description="of those, how many of the newest stay; 0 for all")
    best: bool = Field(True, description="also the one with the lowest validation loss")
    averages: NonNegativeInt = Field(
        0, description="steps between pairs of averages in averages/, from which `ldmctl ema` builds one of any length; 0 for none"
    )


class Watch(Config):
    """Whether validation losses rise, and what is done about it."""

    bound: PositiveFloat | None = Field(
        0.1,
        description="what a validation loss may rise above its best (0.1: a tenth), and above its noise, before a discriminator is turned "
        "down and then off, or the rise is said; null: none of this",
        json_schema_extra=Noted | before(None),
    )
    every: float = Field(
        0.04,
        gt=0,
        le=1,
        description="share of the run between validations beside those of loop.preview; they are 50 steps apart at least",
        json_schema_extra=Free,
    )


class Loop(Config):
    """How long and how fast any training goes. A step is an optimizer step, a batch the global batch."""

    steps: PositiveInt = Field(10_000, description="optimizer steps", json_schema_extra=Noted)
    batch: PositiveInt = Field(64, description="pictures per step over all devices and micro-batches", json_schema_extra=Noted)
    micro: PositiveInt | Literal["auto"] | None = Field(
        None,
        description="pictures per forward and device; null: the whole share at once; auto: as many as one real step finds room for",
        json_schema_extra=Free,
    )
    checkpointing: bool = Field(
        False, description="keep less for the backward and compute it again: less memory, slower", json_schema_extra=Free
    )
    lr: PositiveFloat = Field(1e-4, description="peak learning rate for this global batch; never rescaled", json_schema_extra=Noted)
    warmup: NonNegativeInt = Field(100, description="steps over which the learning rate rises from 0", json_schema_extra=Noted)
    decay: Literal["constant", "cosine", "inverse-sqrt"] = Field(
        "constant", description="the learning rate after warm-up", json_schema_extra=Noted
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.99), description="AdamW's averages", json_schema_extra=Noted)
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay", json_schema_extra=Noted)
    clip: PositiveFloat | None = Field(1.0, description="largest gradient norm; null for none", json_schema_extra=Noted)
    ema: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay of the averaged weights, which are what is used; warms up as (1+t)/(10+t)",
        json_schema_extra=Noted,
    )
    patience: PositiveInt = Field(
        10, description="steps in a row that may be not finite before the run is given up", json_schema_extra=Noted
    )
    seed: NonNegativeInt = Field(0, description="decides initial weights, data order and noise")
    shuffle: Literal["full", "blocks"] = Field(
        "full",
        description="full: any item anywhere in an epoch; blocks: near-sequential reads, for sets larger than memory",
        json_schema_extra=Noted,
    )
    workers: NonNegativeInt | None = Field(None, description="processes that decode pictures; null: chosen", json_schema_extra=Free)
    report: PositiveInt = Field(100, description="steps between lines of metrics.jsonl", json_schema_extra=Free)
    save: PositiveInt = Field(1000, description="steps between states from which the run can be resumed", json_schema_extra=Free)
    preview: PositiveInt = Field(1000, description="steps between pictures in samples/ and validation losses", json_schema_extra=Free)
    keep: Keep = Field(Keep(), json_schema_extra=Free)
    watch: Watch = Watch()
    publish: Literal["auto", "last", "best"] = Field(
        "auto",
        description="which weights model.safetensors has at the end. last: those of the last step; best: those with the lowest validation loss; "
        "auto: the last, unless their validation loss is above the best by more than loop.watch.bound (by a tenth where that is null)",
        json_schema_extra=Free | before("last"),
    )


class Pictures(Config):
    """Keys that any verb with pictures has."""

    data: str | None = Field(None, description="a name in configs/data, or a folder of pictures", json_schema_extra=Place)
    dataset: Annotated[PluginConfig | None, Slot("dataset")] = None
    image: Image = Image()
