"""What a cache of latents says of itself: latents.json, readable without torch, and the network that suits it.

Tensors of a shard, [n, ...] each: `moments` or `codes` of the shape said here, `labels`, `flipped` where `flipped` is true. One more name is
reserved, `features` [n,tokens,width]: it may be there, is hashed with its file, and changes nothing that is said here.

Statistics are frozen when a cache is first complete, since models carry them;
what is measured of the items that are there now stands beside them.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, InstanceOf, PositiveInt, ValidationError, field_validator, model_validator

from ldmctl.config.differences import flatten
from ldmctl.errors import MismatchError

FORMAT = 1
DRIFT = 0.02  # of a deviation: statistics that moved further are spoken of
WIDTHS = {"float16": 2, "float32": 4, "uint8": 1, "uint16": 2, "int32": 4}  # bytes of one number


# Pydantic's own str refuses names of files that are no UTF-8.
Text = InstanceOf[str]


class Loose(BaseModel):
    """A part of a file: readers ignore what they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Sums(Loose):
    """What the statistics of some latents are made of, float64, per channel."""

    count: int = Field(description="values per channel")
    mean: list[float]
    square: list[float] = Field(description="sum of squared distances from the mean")


class Shard(Loose):
    """One file of a split, and the file of its items beside it."""

    file: str
    count: int
    sha256: str
    crc32: list[int] = Field(description="of each 1,024 rows of moments or codes")
    crc32_flipped: list[int] = Field([], description="of each 1,024 rows of flipped, where there are any")
    items_sha256: str = Field("", description="of the .items.jsonl beside it; empty: not recorded")
    sums: Sums | None = Field(None, description="of its latents, in the training split")

    @property
    def items_file(self) -> str:
        """Name of the file that has a line for each row."""
        return str(Path(self.file).with_suffix(".items.jsonl"))


class Statistics(Loose):
    """Mean and deviation of `draw`, float64, over the whole training set."""

    mean: list[FiniteFloat] = Field(min_length=1)
    deviation: list[FiniteFloat]

    @model_validator(mode="after")
    def _of_the_same_channels(self) -> Self:
        if len(self.mean) != len(self.deviation):
            raise ValueError(f"statistics of {len(self.mean)} and of {len(self.deviation)} channels")
        return self


class Codes(Loose):
    """Of a cache that holds codes in place of moments: which ones, and how many of them its training split uses."""

    shape: tuple[PositiveInt, ...] = Field(description="of one item")
    size: PositiveInt = Field(description="how many codes there are")
    used: int = Field(description="how many of them occur")
    perplexity: float = Field(description="as many codes, each as frequent as the others, would carry as much")

    def __str__(self) -> str:
        return f"{self.used:,} of {self.size:,} codes are in use ({self.used / self.size:.1%}), perplexity {self.perplexity:,.1f}"


class Damaged(MismatchError):
    """A latents.json that says nothing, though the shards beside it may be whole."""


class Manifest(Loose):
    """latents.json."""

    format: int
    moments: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(description="shape of one item's, stored or looked up")
    latent: tuple[PositiveInt, PositiveInt, PositiveInt]
    dtype: Literal["float16", "float32", "uint8", "uint16", "int32"] = Field(description="of what is stored")
    codes: Codes | None = Field(None, description="None: moments are stored")
    flipped: bool
    statistics: Statistics = Field(description="what latents are whitened by; frozen")
    measured: Statistics | None = Field(None, description="of the items that are there now")
    classes: list[Text]
    label_counts: list[int]
    captions: dict[str, int] = Field({}, description="how many items have a caption, by split; {}: not recorded")
    maps: bool = Field(False, description="whether the pictures had maps beside them when they were encoded")
    data: Text | None
    image: dict[str, Any]
    autoencoder: dict[str, Any] = Field(description="type and fingerprint of the autoencoder that made the latents")
    fingerprint: str = Field(description="of the items, their preparation and the autoencoder")
    preparation: dict[str, Any] = Field({}, description="all that decides the latents of a picture")
    skipped: dict[str, list[Text]] = Field({}, description="stamps of the pictures that could not be read, by split")
    contents: dict[str, str] = Field({}, description="hashes of which `pictures`, `labels` and `captions` there are; {}: not recorded")
    splits: dict[str, list[Shard]]

    @field_validator("autoencoder")
    @classmethod
    def _names_an_autoencoder(cls, autoencoder: dict[str, Any]) -> dict[str, Any]:
        if not all(isinstance(autoencoder.get(key), str) for key in ("type", "fingerprint")):
            raise ValueError("type and fingerprint of the autoencoder are words")
        return autoencoder

    @property
    def store(self) -> Literal["moments", "codes"]:
        """What the shards hold, by the name of its tensor."""
        return "moments" if self.codes is None else "codes"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is stored of one item."""
        return self.moments if self.codes is None else self.codes.shape

    @property
    def stored(self) -> str:
        """`codes 7 x 7 in uint16, 98 bytes each; 480 of 512 codes are in use (93.8%), perplexity 311.0`."""
        shape = " x ".join(str(side) for side in self.shape)
        return f"{self.store} {shape} in {self.dtype}, {self.item_bytes:,} bytes each" + (f"; {self.codes}" if self.codes else "")

    @property
    def item_bytes(self) -> int:
        """What one item takes in its shard, with its mirrored variant and without its label."""
        return math.prod(self.shape) * WIDTHS[self.dtype] * (1 + self.flipped)

    def count(self, split: str) -> int:
        """Items in a split."""
        return sum(shard.count for shard in self.splits.get(split, []))


def read(folder: str | Path) -> Manifest:
    """The manifest of a finished cache; a missing or unfinished one is a MismatchError."""
    file = Path(folder).expanduser() / "latents.json"
    if not file.exists():
        verb = _verb_of(file.parent)
        if verb == "encode-dataset":
            raise MismatchError(f"{file.parent} is a cache that was started and not finished; run the same `ldmctl encode-dataset` again.")
        if verb == "fit-ae":
            raise MismatchError(
                f"{file.parent} is a run of fit-ae, no cache of latents. `ldmctl encode-dataset --run {file.parent}` makes one."
            )
        raise MismatchError(
            f"There is no cache of latents in {file.parent}: it has no latents.json. `ldmctl encode-dataset --out {file.parent}` makes one."
        )
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw.get("format") != FORMAT:
            raise MismatchError(
                f"{file} has format {raw.get('format')}, this ldmctl reads {FORMAT}. Encode again: ldmctl encode-dataset --overwrite."
            )
        return Manifest.model_validate(raw)
    except (ValueError, ValidationError, AttributeError, RecursionError) as error:
        raise Damaged(
            f"{file} cannot be read: {' '.join(str(error).split())[:300]}. Encode again: the same ldmctl encode-dataset writes it anew "
            "from its shards if it can, and with --overwrite encodes all of them."
        ) from None


def drift(frozen: Statistics, measured: Statistics) -> float:
    """How far statistics have moved, in deviations: the largest shift of a mean, or change of a deviation, of any channel."""
    shifts = [abs(now - then) / deviation for now, then, deviation in zip(measured.mean, frozen.mean, frozen.deviation, strict=True)]
    changes = [abs(now / then - 1) for now, then in zip(measured.deviation, frozen.deviation, strict=True)]
    return max([*shifts, *changes])


def differences(there: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """`key: this there, that asked for` of everything in which two preparations differ."""
    before, after = dict(flatten(there)), dict(flatten(asked))
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {_short(before.get(key))} there, {_short(after.get(key))} asked for" for key in changed]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:12]}...{text[-4:]}"


def _verb_of(folder: Path) -> str | None:
    """The verb whose run a folder holds, None when that cannot be known."""
    return _record(folder).get("verb")


def _record(folder: Path) -> dict[str, Any]:
    """What run.json says, {} when that cannot be known."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
