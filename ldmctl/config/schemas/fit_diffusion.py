"""The keys of `ldmctl fit-diffusion`."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ldmctl.config.base import Config, Free, Noted, Place, PluginConfig, Slot
from ldmctl.config.schemas.shared import Loop, Machine


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


class Preview(Config):
    """Samples of fixed seeds made while training."""

    count: PositiveInt = Field(16, description="how many")
    steps: PositiveInt = Field(20, description="sampler steps")
    guidance: float = Field(1.0, ge=0, description="classifier-free guidance, for conditional models")
    sampler: Annotated[PluginConfig, Slot("sampler", default="unipc")] = PluginConfig(type="unipc")


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


class TrainingNoise(Config):
    """What is done to the noise that latents are trained with."""

    offset: float = Field(
        0.0,
        ge=0,
        description="deviation of what is added to the noise of each latent and channel as a whole, so that very dark and very bright pictures "
        "are learned; 0: none, 0.1 is usual",
    )
    perturbation: float = Field(
        0.0,
        ge=0,
        description="deviation of more noise in what the network sees and not in what it should say, which makes it bear its own errors "
        "(arXiv:2301.11706); 0: none, 0.1 is usual",
    )


ALONE = 0.2  # share of items without this one condition where several are listened to, so that each works without the others


class Drops(Config):
    """Share of items trained without this one condition, beside those trained without any; null: 0.2 where several are listened to."""

    label: float | None = Field(None, ge=0, le=1, description="without their label alone; null: 0.2 with other conditions, else 0")
    text: float | None = Field(None, ge=0, le=1, description="without their caption alone; null: 0.2 with other conditions, else 0")
    map: float | None = Field(None, ge=0, le=1, description="without their map alone; null: 0.2 with other conditions, else 0")
    picture: float | None = Field(None, ge=0, le=1, description="without their picture alone; null: 0.2 with other conditions, else 0")


class Conditions(Config):
    """What the denoiser listens to, a conditioner for each thing that is known of pictures."""

    label: Annotated[PluginConfig | None, Slot("conditioner")] = Field(
        None, description="to classes; a preset fills in `label` when the cache has labels"
    )
    text: Annotated[PluginConfig | None, Slot("conditioner")] = Field(
        None, description="to captions; a preset fills in `words` when at least half of the cache has them"
    )
    map: Annotated[PluginConfig | None, Slot("conditioner")] = Field(None, description="to maps of the pictures: classes, edges, depth")
    picture: Annotated[PluginConfig | None, Slot("conditioner")] = Field(
        None, description="to pictures: `inpaint` a part of the same one, `lowres` a small one"
    )
    drop: Drops = Field(Drops(), json_schema_extra=Noted)
    embed_text: bool = Field(
        False, description="copy the text encoder into the run, so that the folder alone makes pictures of words", json_schema_extra=Free
    )

    @property
    def slots(self) -> list[str]:
        """The slots that have a conditioner."""
        return [slot for slot in ("label", "text", "map", "picture") if getattr(self, slot) is not None]

    def dropped(self, slot: str) -> float:
        """The share of items that are trained without this one condition alone."""
        asked: float | None = getattr(self.drop, slot)
        return asked if asked is not None else ALONE if len(self.slots) > 1 else 0.0


class FitDiffusion(Config):
    """ldmctl fit-diffusion: fit a denoiser to a cache of latents."""

    verb: ClassVar[str] = "fit-diffusion"
    renamed: ClassVar[dict[str, str]] = {"conditioner": "conditions.label"}
    latents: str = Field("cache", description="folder written by encode-dataset", json_schema_extra=Place)
    denoiser: Annotated[PluginConfig, Slot("denoiser", default="unet")]
    schedule: Annotated[PluginConfig, Slot("schedule", default="cosine")]
    prediction: Literal["eps", "x0", "v", "flow"] = Field("x0", description="what the network predicts")
    times: Times = Field(Times(), json_schema_extra=Noted)
    weighting: Weighting = Field(Weighting(), json_schema_extra=Noted)
    noise: TrainingNoise = Field(TrainingNoise(), json_schema_extra=Noted)
    conditions: Conditions = Conditions()
    self_conditioning: bool = Field(
        False,
        description="whether the network also hears what it last said is clean, as more input channels: in half of the training steps it is "
        "asked twice, and in sampling it hears its evaluation before (arXiv:2208.04202)",
    )
    init: str | None = Field(
        None, description="weights to start from: a run of fit-diffusion (runs/ldm, runs/ldm@best)", json_schema_extra=Place
    )
    drop: float = Field(
        0.1, ge=0, le=1, description="share of items trained without any condition, which guidance needs", json_schema_extra=Noted
    )
    flip: bool = Field(False, description="draw the mirrored variant half of the time; the cache must hold it", json_schema_extra=Noted)
    preview: Preview = Field(Preview(), json_schema_extra=Free)
    tracker: Annotated[PluginConfig | None, Slot("tracker")] = Field(None, json_schema_extra=Free)
    loop: Loop = Loop()
    machine: Fleet = Fleet()
