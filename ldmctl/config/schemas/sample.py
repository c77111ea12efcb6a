"""The keys of `ldmctl sample`."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from ldmctl.config.base import Config, Free, PluginConfig, Slot
from ldmctl.config.schemas.shared import Coding
from ldmctl.config.seeds import parse_seeds


class Decoding(Coding):
    """Where pictures are made."""

    devices: PositiveInt = Field(
        1, description="processes on this machine, one device each, which share the pictures", json_schema_extra=Free
    )


class Sample(Config):
    """ldmctl sample: pictures from a trained denoiser."""

    verb: ClassVar[str] = "sample"
    run: str = Field("runs/ldm", description="run folder of fit-diffusion, or runs/ldm@STEP, runs/ldm@best")
    ae: str | None = Field(
        None, description="run folder of fit-ae whose decoder is used, such as one of train=decoder; null: that of the latents themselves"
    )
    count: PositiveInt = Field(16, description="how many pictures (-n)")
    seed: NonNegativeInt = Field(0, description="seed of the first picture; the next ones count up")
    seeds: str | None = Field(None, description="in place of seed and count: numbers and ranges, such as 0-63,100")
    each: PositiveInt | None = Field(None, description="pictures of each label that is asked for, in place of count")
    sampler: Annotated[PluginConfig, Slot("sampler", default="ddim")]
    steps: PositiveInt = Field(50, description="steps of the sampler per picture; most evaluate the network once in each")
    spacing: Literal["trailing", "leading", "linspace"] = Field("trailing", description="which of the schedule's times are visited")
    label: list[str] | None = Field(
        None,
        description="classes, taken in turn: a name, class:NAME, index:N counted from 0 (plain N where no class has a number for its name), "
        "`none` for no class, or `all` for every class in turn; null: drawn as in the data",
    )
    guidance: float = Field(1.0, ge=0, description="classifier-free guidance: 0 unconditional, 1 plain, more follows the label harder")
    batch: PositiveInt = Field(16, description="pictures per forward; short batches are padded so that bytes depend on the seed alone")
    npz: bool = Field(False, description="also write samples.npz, uint8 [N,H,W,C] as arr_0, which FID tools read")
    machine: Decoding = Decoding()

    @field_validator("seeds", mode="before", json_schema_input_type=str | int | list[str | int] | None)
    @classmethod
    def _numbers_and_ranges(cls, seeds: Any) -> Any:
        return seeds if seeds is None else str(parse_seeds(",".join(map(str, seeds)) if isinstance(seeds, list) else str(seeds)))

    @model_validator(mode="after")
    def _says_once_how_many(self) -> Self:
        for one, others in {"seeds": ("seed", "count", "each"), "each": ("count",)}.items():
            for other in others:
                if getattr(self, one) is not None and getattr(self, other) is not None and other in self.model_fields_set:
                    raise ValueError(
                        f"{one}={getattr(self, one)} and {other}={getattr(self, other)} both say which pictures to make; leave one of them away"
                    )
        if self.each is not None and not self.label:
            raise ValueError(f"each={self.each} counts pictures of each label, and none is asked for; name labels, or take label=all")
        return self

    @field_validator("label", mode="before", json_schema_input_type=str | int | list[str | int] | None)
    @classmethod
    def _one_or_many(cls, label: Any) -> Any:
        labels = label if isinstance(label, list) else [label]
        words = {None: "none", True: "true", False: "false"}  # as YAML writes them
        return None if label is None else [words[each] if each is None or isinstance(each, bool) else str(each) for each in labels]
