"""The keys of `ldmctl sample`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from ldmctl.config.base import Config, PluginConfig, Slot
from ldmctl.config.schemas.shared import Coding


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
