"""From presets, KEY=VALUE and flags to one validated, fully spelled-out config.

A config is made of layers, each a plain dict, later ones stronger. A slot is a
key that a plugin fills; only the plugins that the layers name are imported, and
their own `Config` checks their keys together with all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticSerializationError

from ldmctl.errors import PluginError


class Config(BaseModel):
    """Base of every config: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("input should be a number, neither true nor false")
        return value

    @field_serializer("*", mode="wrap", when_used="json")
    def _sets_in_order(self, value: Any, handler: SerializerFunctionWrapHandler) -> Any:
        return _in_order(value, handler(value))


class PluginConfig(Config):
    """Base of the nested `Config` of a plugin class. `type` is the name it is registered under."""

    model_config = ConfigDict(populate_by_name=True)  # files have the names of keys, whatever else they are called

    type: str = ""  # so that `Heun.Config()` is one, in Python; in configs it is always there

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        try:
            self.model_dump(mode="json", warnings="none")
        except PydanticSerializationError as error:
            raise PluginError(
                f"The plugin {self.type!r} has a key whose value cannot be written into a file, and files are to say how they were made: {error}. "
                f"Give the keys of {type(self).__module__}.{type(self).__qualname__} numbers, texts, and lists or mappings of them."
            ) from None
        return self


class Slot:
    """Marks a field filled by a plugin of this kind: `Annotated[PluginConfig, Slot("sampler", default="unipc")]`."""

    def __init__(
        self,
        kind: str,
        default: str | None = None,
        *,
        many: bool = False,
        beside: Callable[[Mapping[str, Any]], str | None] = lambda raw: None,
    ):
        self.kind = kind
        self.default = default
        self.beside = beside  # the default that the other keys ask for, where they do
        self.many = many  # a tuple of them; one alone may be written as it is


# json_schema_extra of a key that may change when a run is resumed
Free: dict[str, Any] = {"free": True}  # and that decides nothing of what is learned
Noted: dict[str, Any] = {"free": True, "noted": True}  # from the next step on; said, and written into run.json
Place: dict[str, Any] = {"free": True, "place": True}  # since it only says where something lies, which is known by its fingerprint


def before(value: Any) -> dict[str, Any]:
    """json_schema_extra of a key that was added later: what runs made before did, where that is not its default."""
    return {"before": value}


def value_before(field: Any) -> Any:
    """What a run did that was made before there was this key."""
    extra = field.json_schema_extra
    return extra["before"] if isinstance(extra, dict) and "before" in extra else field.get_default(call_default_factory=True)


def slot_of(field: Any) -> Slot | None:
    """The Slot mark of a pydantic field."""
    return next((mark for mark in field.metadata if isinstance(mark, Slot)), None)


def section_of(field: Any) -> type[BaseModel] | None:
    """The nested config class of a pydantic field, None for a slot or a plain value."""
    if slot_of(field) is not None:
        return None
    options = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else [field.annotation]
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def _in_order(value: Any, written: Any) -> Any:
    """What was written of a value, with its sets in one order, whatever the process hashes."""
    if isinstance(value, set | frozenset) and isinstance(written, list):
        return sorted(written, key=lambda each: (str(type(each)), each if isinstance(each, int | float | str) else repr(each)))
    if isinstance(value, dict) and isinstance(written, dict) and len(value) == len(written):
        return {key: _in_order(one, each) for one, (key, each) in zip(value.values(), written.items(), strict=True)}
    if isinstance(value, list | tuple) and isinstance(written, list) and len(value) == len(written):
        return [_in_order(one, each) for one, each in zip(value, written, strict=True)]
    return written


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that an annotation is made of: {int, NoneType} of `PositiveInt | None`."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for option in get_args(annotation) for kind in _kinds(option)}
    return {annotation}


# -- what may change -----------------------------------------------------------
