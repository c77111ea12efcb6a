"""The keys of `ldmctl eval-lpips`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ldmctl.config.base import PluginConfig, Slot
from ldmctl.config.schemas.shared import Coding, Pictures


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
    count: PositiveInt | None = Field(None, description="only so many pictures, spread evenly; null: all")
    batch: PositiveInt = Field(32, description="pictures per forward")
    workers: NonNegativeInt | None = Field(None, description="processes that decode pictures; null: chosen")
    machine: Coding = Coding()

    @model_validator(mode="before")
    @classmethod
    def _pairs_have_no_run(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("pairs") and any(raw.get(key) for key in ("run", "data", "dataset")):
            raise ValueError("pairs compares two folders; leave out run, data and dataset")
        return raw
