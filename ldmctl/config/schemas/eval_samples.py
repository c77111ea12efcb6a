"""The keys of `ldmctl eval-samples`: those of `sample`, and what its pictures are compared with."""

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from ldmctl.config.base import PluginConfig, Slot
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.schemas.shared import Coding, Pictures


class EvalSamples(Sample, Pictures):
    """ldmctl eval-samples: how good samples are, how varied, whether they are what was asked for, and whether they are copies."""

    verb: ClassVar[str] = "eval-samples"
    samples: str | None = Field(None, description="a folder of samples, anybody's; null: they are made by the run")
    against: str | None = Field(
        None, description="a cache, a folder of pictures or a name in configs/data to compare with; null: what the run learned from"
    )
    count: PositiveInt = Field(5000, description="how many samples (-n)")
    batch: PositiveInt = Field(64, description="pictures per forward")
    references: PositiveInt = Field(10_000, description="real pictures to compare with at most, evenly over the training pictures")
    extractor: Annotated[PluginConfig | None, Slot("extractor")] = Field(
        None, description="what sees the pictures; null: fitted where they have labels, else latent"
    )
    nearest: bool = Field(
        True, description="find the training picture nearest to each sample, for which every training picture is looked at once"
    )
    curve: bool = Field(
        False, description="judge every snapshot of the run, and averages of several lengths where they are stored, by the same seeds"
    )
    workers: NonNegativeInt | None = Field(None, description="processes that decode pictures; null: chosen")
    machine: Coding = Coding()  # type: ignore[assignment]  # one device: samples are many and small
