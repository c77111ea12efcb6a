"""What the headers of ldmctl's files must say, checked before anything is built of them: a damaged file is named, not our code.

Fields that are not listed here are passed over, so that later versions may add some.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StrictBool,
    ValidationError,
    model_validator,
)

from ldmctl import registry
from ldmctl.errors import MismatchError, PluginError

Header = TypeVar("Header", bound="Loose")


class Loose(BaseModel):
    """Of a header, the part that is read."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Typed(Loose):
    """A plugin's config: its type, and keys that the plugin's own Config checks."""

    type: str


class Described(Loose):
    """A plugin as `weights.describe` wrote it."""

    kind: str
    type: str
    config: Typed
    context: dict[str, Any]


class Autoencoder(Described):
    """Of a file of fit-ae, and of autoencoder.safetensors."""

    class Context(Loose):
        """What it was built with beside its config."""

        image_channels: Literal[1, 3, 4]

    kind: Literal["autoencoder"]
    context: Context  # type: ignore[assignment]


class Diffusion(Loose):
    """Of a file of fit-diffusion."""

    class Statistics(Loose):
        """What latents were whitened by."""

        mean: list[FiniteFloat] = Field(min_length=1)
        deviation: list[PositiveFloat]

        @model_validator(mode="after")
        def _of_the_same_channels(self) -> Self:
            if len(self.mean) != len(self.deviation):
                raise ValueError(f"{len(self.mean)} means and {len(self.deviation)} deviations")
            return self

    class Image(Loose):
        """The pictures behind the latents."""

        size: PositiveInt
        channels: Literal[1, 3, 4]

    class Fingerprinted(Loose):
        """The autoencoder that made the latents."""

        fingerprint: str

    denoiser: Described
    conditioner: Described | None
    conditions: dict[Literal["text", "map", "picture"], Described] = {}
    self_conditioning: StrictBool = False
    schedule: Described
    prediction: Literal["eps", "x0", "v", "flow"]
    latent: tuple[PositiveInt, PositiveInt, PositiveInt]
    statistics: Statistics
    classes: list[str]
    label_counts: list[NonNegativeInt]
    image: Image
    autoencoder: Fingerprinted
    step: NonNegativeInt | None = None


class Token(Loose):
    """Of a file of fit-token."""

    kind: Literal["token"]
    word: str = Field(min_length=1)
    listens: Literal["text", "label"] = "text"  # a word, or a class
    type: str  # of the conditioner
    conditioner: str  # what it is known by
    step: NonNegativeInt


class Scalars(Loose):
    """Numbers of the loop in a state."""

    class Kept(Loose):
        """What the loop keeps from validation to validation."""

        best: float | None = None
        validation: dict[str, Any] = {}

    step: NonNegativeInt
    steps: PositiveInt
    kept: Kept
    bad_in_a_row: NonNegativeInt
    seen: NonNegativeInt = 0  # a state from before it was counted has none


class State(Loose):
    """Of state.safetensors."""

    class Part(Loose):
        """A file of one rank."""

        file: str
        size: NonNegativeInt
        sha256: str

    scalars: dict[str, Any]
    shards: list[Part] = []


def check(model: type[Header], header: Mapping[str, Any], path: Path) -> None:
    """A MismatchError that names the file and the first field that is not as ldmctl writes it."""
    try:
        model.model_validate(dict(header))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MismatchError(
            f"{path} is damaged, or was not written by ldmctl: {where or 'its header'} in its header, {first['msg'][:1].lower()}{first['msg'][1:]}."
        ) from None


def check_context(description: Mapping[str, Any], path: Path) -> None:
    """A MismatchError if the plugin cannot be called with the context that the file names."""
    try:
        plugin = registry.load(description["kind"], description["config"]["type"])
    except PluginError:  # said with the package that the file names, when the plugin is built
        return
    try:
        inspect.signature(plugin).bind(None, **description["context"])
    except TypeError as error:
        raise MismatchError(
            f"{path} does not fit {description['kind']} {description['config']['type']!r}: its header names another context ({error})."
        ) from None
