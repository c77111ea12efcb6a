"""The keys of `ldmctl encode-dataset`."""

from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ldmctl.config.base import Free, Place
from ldmctl.config.schemas.shared import Coding, Pictures


class Encoding(Coding):
    """Where a data set is encoded."""

    devices: PositiveInt = Field(
        1, description="processes on this machine, one device and every so many-th shard each", json_schema_extra=Free
    )


class EncodeDataset(Pictures):
    """ldmctl encode-dataset: every picture through the encoder once, into a cache of latents."""

    verb: ClassVar[str] = "encode-dataset"
    run: str = Field("runs/ae", description="run folder of fit-ae, or runs/ae@STEP, runs/ae@best", json_schema_extra=Place)
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
