"""The keys of `ldmctl sample`."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from ldmctl.config.base import Config, Free, PluginConfig, Slot
from ldmctl.config.levels import Spacing
from ldmctl.config.schemas.shared import Coding


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
    sampler: Annotated[PluginConfig, Slot("sampler", default="ddim")]
    steps: PositiveInt = Field(50, description="steps of the sampler per picture; most evaluate the network once in each")
    spacing: Spacing = Spacing()
    label: list[str] | None = Field(
        None,
        description="classes, taken in turn: a name, class:NAME, index:N counted from 0 (plain N where no class has a number for its name), "
        "or `none` for no class; null: drawn as in the data",
    )
    guidance: float = Field(1.0, ge=0, description="classifier-free guidance: 0 unconditional, 1 plain, more follows the label harder")
    batch: PositiveInt = Field(16, description="pictures per forward; short batches are padded so that bytes depend on the seed alone")
    machine: Decoding = Decoding()

    @field_validator("spacing", mode="before", json_schema_input_type=str | list[float] | Spacing)
    @classmethod
    def _named_or_spelled_out(cls, spacing: Any) -> Any:
        return spacing

    @field_validator("label", mode="before", json_schema_input_type=str | int | list[str | int] | None)
    @classmethod
    def _one_or_many(cls, label: Any) -> Any:
        labels = label if isinstance(label, list) else [label]
        words = {None: "none", True: "true", False: "false"}  # as YAML writes them
        return None if label is None else [words[each] if each is None or isinstance(each, bool) else str(each) for each in labels]
