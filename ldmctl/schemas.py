"""Every key of every verb, with its default and what it means. Readable without torch.

A key marked `Free` may change when a run is resumed; any other change is refused.
Slots are filled by plugins, whose own keys stand in their `Config`.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from ldmctl.config import Config, Free, PluginConfig, Slot
from ldmctl.errors import did_you_mean

Beta = Annotated[float, Field(ge=0, lt=1)]


class Compute(Config):
    """Where the work runs and in which numbers."""

    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="auto takes cuda, then mps, then cpu", json_schema_extra=Free)
    precision: Literal["auto", "bf16", "fp32", "fp16"] = Field("auto", description="auto: bf16 where the hardware has it, else fp32")


class Machine(Compute):
    """Where training runs."""

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


class Fleet(Machine):
    """Where a denoiser is trained."""

    compile: bool | Literal["auto"] = Field(
        "auto",
        description="whether torch.compile translates the network first: minutes once, then faster steps; auto: on cuda",
        json_schema_extra=Free,
    )

    @model_validator(mode="after")
    def _compiled_or_sharded(self) -> Self:
        if self.compile is True and self.parallel == "fsdp":
            raise ValueError("parallel=fsdp is not compiled: take compile=false, or auto, which leaves it out then")
        return self


class Coding(Compute):
    """Where pictures are encoded or decoded."""

    tile: PositiveInt | None = Field(
        1024,
        description="side of the square tiles, pixels, in which larger pictures are encoded and decoded; null: always whole",
        json_schema_extra=Free,
    )


class Image(Config):
    """How every picture is prepared, for training, encoding and evaluation alike."""

    size: PositiveInt = Field(128, ge=4, le=4096, description="side of the square picture, pixels")
    channels: Literal[1, 3, 4] = Field(3, description="1 grey, 3 colour, 4 colour and alpha")
    crop: Literal["center", "random"] = Field(
        "center", description="which square of a picture that is not square; random only while training"
    )
    flip: bool = Field(False, description="mirror half of the pictures while training")
    background: str = Field("white", description="colour under transparent pixels: a name or #rrggbb")

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


class Loop(Config):
    """How long and how fast any training goes. A step is an optimizer step, a batch the global batch."""

    steps: PositiveInt = Field(10_000, description="optimizer steps", json_schema_extra=Free)
    batch: PositiveInt = Field(64, description="pictures per step over all devices and micro-batches")
    micro: PositiveInt | Literal["auto"] | None = Field(
        None,
        description="pictures per forward and device; null: the whole share at once; auto: as many as one real step finds room for",
        json_schema_extra=Free,
    )
    checkpointing: bool = Field(
        False, description="keep less for the backward and compute it again: less memory, slower", json_schema_extra=Free
    )
    lr: PositiveFloat = Field(1e-4, description="peak learning rate for this global batch; never rescaled")
    warmup: NonNegativeInt = Field(100, description="steps over which the learning rate rises from 0")
    decay: Literal["constant", "cosine", "inverse-sqrt"] = Field("constant", description="the learning rate after warm-up")
    betas: tuple[Beta, Beta] = Field((0.9, 0.99), description="AdamW's averages")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    clip: PositiveFloat | None = Field(1.0, description="largest gradient norm; null for none")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which are what is used; warms up as (1+t)/(10+t)")
    patience: PositiveInt = Field(10, description="steps in a row that may be not finite before the run is given up")
    seed: NonNegativeInt = Field(0, description="decides initial weights, data order and noise")
    shuffle: Literal["full", "blocks"] = Field(
        "full", description="full: any item anywhere in an epoch; blocks: near-sequential reads, for sets larger than memory"
    )
    workers: NonNegativeInt | None = Field(None, description="processes that decode pictures; null: chosen", json_schema_extra=Free)
    report: PositiveInt = Field(100, description="steps between lines of metrics.jsonl", json_schema_extra=Free)
    save: PositiveInt = Field(1000, description="steps between states from which the run can go on", json_schema_extra=Free)
    preview: PositiveInt = Field(1000, description="steps between pictures in samples/ and validation losses", json_schema_extra=Free)
    keep: Keep = Field(Keep(), json_schema_extra=Free)


class Losses(Config):
    """What a reconstruction is measured by while training."""

    pixel: Literal["l1", "l2"] = Field("l1", description="l1: mean absolute error, l2: mean squared error")
    pixel_weight: float = Field(1.0, ge=0)
    perceptual_weight: float = Field(1.0, ge=0)
    perceptual_missing: Literal["error", "skip"] = Field(
        "error", description="when the weights of the perceptual plugin cannot be had: stop (exit 4), or train without it and say so"
    )
    equivariance_weight: float = Field(
        0.0,
        ge=0,
        description="weight of a penalty that makes scaled and turned latents decode to scaled and turned pictures (EQ-VAE); 0: off",
    )
    equivariance_share: float = Field(0.25, gt=0, le=1, description="share of each batch that the penalty looks at")


StepOrShare = Annotated[int | float, Field(ge=0)]


class Adversarial(Config):
    """How the discriminator's opinion is learned and weighed; used when `discriminator` is set."""

    loss: Literal["hinge", "vanilla", "lsgan"] = "hinge"
    weight: float = Field(
        0.1,  # louder, the discriminator was defeated within a hundred steps (benchmarks/adversarial.py)
        ge=0,
        description="size of its gradient where it is balanced, relative to that of the other losses",
    )
    start: StepOrShare | Literal["auto"] = Field(
        0.5, description="first step of the discriminator: a step (1000), a share of the run (0.5), or auto: when the losses level off"
    )
    warmup: StepOrShare = Field(0.02, description="how long it then learns alone: steps or a share of the run")
    ramp: StepOrShare = Field(0.05, description="how long its weight then rises from 0: steps or a share of the run")
    lr: PositiveFloat | None = Field(None, description="learning rate of the discriminator; null: loop.lr")
    balance: Literal["image", "last-layer", "none"] = Field(
        "image", description="where gradient norms are compared: at the reconstruction, at the autoencoder's last layer, or nowhere"
    )
    balance_every: PositiveInt = Field(1, description="steps between measurements of the norms")
    balance_smoothing: float = Field(0.9, ge=0, lt=1, description="decay of the averaged ratio of the norms")
    balance_max: PositiveFloat = Field(1e4, description="largest ratio of the norms")
    augment: list[Literal["colour", "translation", "cutout"]] = Field(
        [], description="what pictures go through before the discriminator sees them, real and made alike (DiffAugment)"
    )
    r1: float = Field(0.0, ge=0, description="gamma of the gradient penalty on real pictures (R1); 0: off")
    r1_every: PositiveInt = Field(16, description="steps between gradient penalties, each weighed so much more")
    lecam: float = Field(
        0.0, ge=0, description="weight of the penalty that keeps logits near their averages (LeCam), for few pictures; 0: off"
    )

    @field_validator("start", "warmup", "ramp")
    @classmethod
    def _step_or_share(cls, value: int | float | str) -> int | float | str:
        if isinstance(value, str):
            return value
        if value >= 1 and not float(value).is_integer():
            raise ValueError("a number of 1 or more counts steps and must be whole; below 1 it is a share of the run")
        return int(value) if value >= 1 else value


class Pictures(Config):
    """Keys that any verb with pictures has."""

    data: str | None = Field(None, description="a name in configs/data, or a folder of pictures")
    dataset: Annotated[PluginConfig | None, Slot("dataset")] = None
    image: Image = Image()


class FitAE(Pictures):
    """ldmctl fit-ae: fit an autoencoder to a folder of pictures."""

    verb: ClassVar[str] = "fit-ae"
    autoencoder: Annotated[PluginConfig, Slot("autoencoder", default="vae")]
    perceptual: Annotated[PluginConfig | None, Slot("perceptual")] = None
    discriminator: Annotated[PluginConfig | None, Slot("discriminator")] = None
    losses: Losses = Losses()
    adversarial: Adversarial = Adversarial()
    init: str | None = Field(None, description="weights to begin with: a run folder (runs/ae, runs/ae@best) or a folder saved by diffusers")
    train: Literal["all", "decoder"] = Field(
        "all", description="decoder: the encoder and its codes stay as they are, so latents stay valid"
    )
    tracker: Annotated[PluginConfig | None, Slot("tracker")] = Field(None, json_schema_extra=Free)
    loop: Loop = Loop()
    machine: Machine = Machine()

    @model_validator(mode="after")
    def _autoencoders_are_not_sharded(self) -> Self:
        if self.machine.parallel == "fsdp":
            raise ValueError("machine.parallel: fsdp shares large denoisers among devices (fit-diffusion); fit-ae trains with ddp")
        return self


class Encoding(Coding):
    """Where a data set is encoded."""

    devices: PositiveInt = Field(
        1, description="processes on this machine, one device and every so many-th shard each", json_schema_extra=Free
    )


class EncodeDataset(Pictures):
    """ldmctl encode-dataset: every picture through the encoder once, into a cache of latents."""

    verb: ClassVar[str] = "encode-dataset"
    run: str = Field("runs/ae", description="run folder of fit-ae, or runs/ae@STEP, runs/ae@best")
    store: Literal["moments", "codes"] = Field(
        "moments",
        description="codes: of an autoencoder with a codebook, the number of the nearest code in place of its features, a fraction of the size",
    )
    dtype: Literal["auto", "float16", "float32"] = Field(
        "auto", description="of moments; auto: float16 unless its range or rounding is too small"
    )
    flip: bool = Field(False, description="also encode the mirrored picture, as a second variant of each item")
    batch: PositiveInt = Field(64, description="pictures per forward", json_schema_extra=Free)
    shard: PositiveInt = Field(
        16_384, description="pictures per shard file: what an interruption may cost, and what a device takes at a time"
    )
    workers: NonNegativeInt | None = Field(None, description="processes that decode pictures; null: chosen", json_schema_extra=Free)
    machine: Encoding = Encoding()

    @model_validator(mode="after")
    def _codes_have_their_own_dtype(self) -> Self:
        if self.store == "codes" and self.dtype != "auto":
            raise ValueError(
                f"dtype={self.dtype} is for moments; store=codes takes the smallest integers that hold its codes, so leave dtype out"
            )
        return self


class Preview(Config):
    """Samples of fixed seeds made while training."""

    count: PositiveInt = Field(16, description="how many")
    steps: PositiveInt = Field(30, description="sampler steps")
    guidance: float = Field(1.0, ge=0, description="classifier-free guidance, for conditional models")
    sampler: Annotated[PluginConfig, Slot("sampler", default="ddim")] = PluginConfig(type="ddim")


class Times(Config):
    """Which noise levels a denoiser is trained at."""

    sampling: Literal["uniform", "stratified", "logit-normal"] = Field(
        "uniform",
        description="uniform: each time equally likely; stratified: so, spread evenly over each batch; logit-normal: the middle more",
    )
    mean: float = Field(0.0, description="of logit-normal: below 0 more times near clean, above more near noise")
    deviation: PositiveFloat = Field(1.0, description="of logit-normal: the smaller, the more in the middle")


class Weighting(Config):
    """How much each noise level counts in the loss."""

    kind: Literal["none", "min-snr", "soft-min-snr", "learned"] = Field(
        "none",
        description="none: the loss of the prediction as it is; the others weigh it by signal-to-noise, or by an uncertainty learned along",
    )
    gamma: PositiveFloat = Field(
        5.0, description="of min-snr and soft-min-snr: the signal-to-noise ratio beyond which weights rise no more"
    )


class FitDiffusion(Config):
    """ldmctl fit-diffusion: fit a denoiser to a cache of latents."""

    verb: ClassVar[str] = "fit-diffusion"
    latents: str = Field("cache", description="folder written by encode-dataset")
    denoiser: Annotated[PluginConfig, Slot("denoiser", default="unet")]
    schedule: Annotated[PluginConfig, Slot("schedule", default="cosine")]
    prediction: Literal["eps", "x0", "v", "flow"] = Field("x0", description="what the network predicts")
    times: Times = Times()
    weighting: Weighting = Weighting()
    conditioner: Annotated[PluginConfig | None, Slot("conditioner")] = Field(
        None, description="what the denoiser listens to; a preset fills in `label` when the cache has labels"
    )
    drop: float = Field(0.1, ge=0, le=1, description="share of items trained without their condition, which guidance needs")
    flip: bool = Field(False, description="draw the mirrored variant half of the time; the cache must hold it")
    preview: Preview = Field(Preview(), json_schema_extra=Free)
    tracker: Annotated[PluginConfig | None, Slot("tracker")] = Field(None, json_schema_extra=Free)
    loop: Loop = Loop()
    machine: Fleet = Fleet()


class Sample(Config):
    """ldmctl sample: pictures from a trained denoiser."""

    verb: ClassVar[str] = "sample"
    run: str = Field("runs/ldm", description="run folder of fit-diffusion, or runs/ldm@STEP, runs/ldm@best")
    ae: str | None = Field(
        None, description="run folder of fit-ae whose decoder is used, such as one of train=decoder; null: that of the latents themselves"
    )
    count: PositiveInt = Field(16, description="how many pictures (-n)")
    seed: NonNegativeInt = Field(0, description="seed of the first picture; the next ones count up")
    sampler: Annotated[PluginConfig, Slot("sampler", default="ddim")]
    steps: PositiveInt = Field(50, description="network evaluations per picture")
    spacing: Literal["trailing", "leading", "linspace"] = Field("trailing", description="which of the schedule's times are visited")
    label: list[str] | None = Field(
        None, description="class names or numbers, taken in turn; `none` is unconditional; null: drawn as in the data"
    )
    guidance: float = Field(1.0, ge=0, description="classifier-free guidance: 0 unconditional, 1 plain, more follows the label harder")
    batch: PositiveInt = Field(16, description="pictures per forward; short batches are padded so that bytes depend on the seed alone")
    machine: Coding = Coding()

    @field_validator("label", mode="before")
    @classmethod
    def _one_or_many(cls, label: Any) -> Any:
        labels = label if isinstance(label, list) else [label]
        return None if label is None else [str(each) for each in labels]


class EvalLpips(Pictures):
    """ldmctl eval-lpips: how good an autoencoder is and whether that is enough for diffusion; or how far two folders are apart."""

    verb: ClassVar[str] = "eval-lpips"
    run: str = Field("runs/ae", description="run folder of fit-ae, or runs/ae@STEP, runs/ae@best")
    pairs: tuple[str, str] | None = Field(None, description="two folders of pictures with equal file names, instead of a run")
    split: Literal["val", "train"] | None = Field(
        None, description="which part of the data is reconstructed; null: val, or train where nothing is held out"
    )
    perceptual: Annotated[PluginConfig | None, Slot("perceptual", default="lpips")] = Field(
        None, description="a distance to measure, beside the one that the run was trained with; null: neither"
    )
    count: PositiveInt | None = Field(None, description="only the first so many pictures; null: all")
    batch: PositiveInt = Field(32, description="pictures per forward")
    workers: NonNegativeInt | None = Field(None, description="processes that decode pictures; null: chosen")
    machine: Coding = Coding()

    @model_validator(mode="before")
    @classmethod
    def _pairs_have_no_run(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("pairs") and any(raw.get(key) for key in ("run", "data", "dataset")):
            raise ValueError("pairs compares two folders; leave out run, data and dataset")
        return raw


VERBS: dict[str, type[Config]] = {schema.verb: schema for schema in (FitAE, EncodeDataset, FitDiffusion, Sample, EvalLpips)}
