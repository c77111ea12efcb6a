"""From presets, KEY=VALUE and flags to one validated, fully spelled-out config.

A config is made of layers, each a plain dict, later ones stronger. A slot is a
key that a plugin fills; only the plugins that the layers name are imported, and
their own `Config` checks their keys together with all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, create_model, field_validator
from pydantic_core import to_jsonable_python

from ldmctl import registry
from ldmctl.documents import Raw
from ldmctl.errors import ConfigError, did_you_mean, with_article


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


class PluginConfig(Config):
    """Base of the nested `Config` of a plugin class. `type` is the name it is registered under."""

    type: str


class Slot:
    """Marks a field filled by a plugin of this kind: `Annotated[PluginConfig, Slot("sampler", default="ddim")]`."""

    def __init__(self, kind: str, default: str | None = None):
        self.kind = kind
        self.default = default


Free: dict[str, Any] = {"free": True}  # json_schema_extra of a key that may change when a run is resumed
Schema = TypeVar("Schema", bound=Config)


def resolve(schema: type[Schema], layers: Sequence[Raw], *, source: str) -> Schema:
    """The validated config of these layers, weakest first; `source` names them in a ConfigError."""
    raw = merge([spell_out(schema, layer) for layer in layers])
    concrete = _narrow(schema, raw, at="")
    try:
        return concrete.model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(item, concrete) for item in error.errors())
        raise ConfigError(f"{source} does not describe {with_article(schema.verb)} run:\n  " + "\n  ".join(lines)) from None  # type: ignore[attr-defined]


def plugin_config(kind: str, raw: Mapping[str, Any]) -> Any:
    """The Config of one plugin from its dict, as found in the header of a file."""
    concrete: type[PluginConfig] = registry.load(kind, raw["type"]).Config  # type: ignore[attr-defined]
    try:
        return concrete.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(item, concrete) for item in error.errors()]
        raise ConfigError(f"{kind} {raw['type']!r} cannot be made:\n  " + "\n  ".join(lines)) from None


def merge(layers: Sequence[Raw]) -> Raw:
    """One dict, later layers stronger. Keys that were written for another `type` than the last one named are dropped."""
    out: Raw = {}
    for key in dict.fromkeys(key for layer in layers for key in layer):
        values = [layer[key] for layer in layers if key in layer]
        if not isinstance(values[-1], dict):
            out[key] = values[-1]
            continue
        plain = [i for i, value in enumerate(values) if not isinstance(value, dict)]
        parts = values[plain[-1] + 1 :] if plain else values
        named = [part["type"] for part in parts if "type" in part]
        out[key] = merge([part for part in parts if not named or part.get("type", named[-1]) == named[-1]])
    return out


def spell_out(schema: type[BaseModel], raw: Raw) -> Raw:
    """The same layer with `slot: name` written as `slot: {type: name}`."""
    out = dict(raw)
    for name, field in schema.model_fields.items():
        if name not in raw:
            continue
        if slot_of(field) is not None and isinstance(raw[name], str):
            out[name] = {"type": raw[name]}
        elif (section := section_of(field)) is not None and isinstance(raw[name], dict):
            out[name] = spell_out(section, raw[name])
    return out


def slot_of(field: Any) -> Slot | None:
    """The Slot mark of a pydantic field."""
    return next((mark for mark in field.metadata if isinstance(mark, Slot)), None)


def section_of(field: Any) -> type[BaseModel] | None:
    """The nested config class of a pydantic field, None for a slot or a plain value."""
    if slot_of(field) is not None:
        return None
    options = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else [field.annotation]
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def _narrow(schema: type[BaseModel], raw: Raw, *, at: str) -> type[Any]:
    """The schema with each slot narrowed to the Config of the plugin it names. Fills in the names of default plugins."""
    narrowed: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        if (slot := slot_of(field)) is not None:
            if (plugin := _plugin_of(slot, name, raw, at)) is not None:
                narrowed[name] = (plugin.Config, ...)  # type: ignore[attr-defined]
        elif (section := section_of(field)) is not None and isinstance(raw.get(name, {}), dict):
            inner = raw.get(name, {})
            concrete = _narrow(section, inner, at=f"{at}{name}.")
            if concrete is not section:
                raw[name] = inner
                narrowed[name] = (concrete, ...)
    return create_model(schema.__name__, __base__=schema, **narrowed) if narrowed else schema


def _plugin_of(slot: Slot, name: str, raw: Raw, at: str) -> type | None:
    if name not in raw and slot.default is not None:
        raw[name] = {}
    given = raw.get(name)
    if not isinstance(given, dict):  # absent, null or nonsense: pydantic says so
        return None
    if given.get("type") is None:
        if slot.default is None or "type" in given:
            names = ", ".join(plugin.name for plugin in registry.plugins(slot.kind))
            raise ConfigError(f"{at}{name}.type is missing: name {with_article(slot.kind)}, one of {names}.")
        raw[name] = given = {"type": slot.default, **given}
    return registry.load(slot.kind, str(given["type"]))


def _explain(item: Any, schema: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{path}: is missing"
    if item["type"] in ("model_type", "model_attributes_type"):
        return f"{path}: has keys of its own, or is {{}} for their defaults (got {item['input']!r})"
    if item["type"] != "extra_forbidden":
        said = item["msg"].removeprefix("Value error, ")
        got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
        return (f"{path}: " if path else "") + f"{said[:1].lower()}{said[1:]}{got}"
    owner: Any = schema
    for key in item["loc"][:-1]:
        field = owner.model_fields.get(key)
        owner = field.annotation if field is not None and slot_of(field) else section_of(field) if field is not None else None
        if owner is None:
            return f"{path}: unknown key."
    keys = [key for key in owner.model_fields if key != "type"]
    return f"{path}: unknown key.{did_you_mean(str(item['loc'][-1]), keys)} Keys here: {', '.join(keys)}."


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that an annotation is made of: {int, NoneType} of `PositiveInt | None`."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for option in get_args(annotation) for kind in _kinds(option)}
    return {annotation}


# -- what may change -----------------------------------------------------------


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", 1) for each leaf of a nested dict."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def free_keys(schema: type[BaseModel], prefix: str = "") -> set[str]:
    """Paths of the keys, or sections, that may change when a run is resumed."""
    out = set()
    for name, field in schema.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("free"):
            out.add(f"{prefix}{name}")
        elif (section := section_of(field)) is not None:
            out |= free_keys(section, f"{prefix}{name}.")
    return out


def defaults(schema: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", default as JSON has it) of each key that need not be given, those of the plugins that `values` names among them."""
    for name, field in schema.model_fields.items():
        there = values.get(name)
        within = there if isinstance(there, Mapping) else {}
        if (section := section_of(field)) is not None:
            yield from defaults(section, within, f"{prefix}{name}.")
        elif (slot := slot_of(field)) is not None:
            if "type" in within:
                yield from defaults(registry.load(slot.kind, within["type"]).Config, within, f"{prefix}{name}.")  # type: ignore[attr-defined]
        elif not field.is_required():
            yield f"{prefix}{name}", to_jsonable_python(field.get_default(call_default_factory=True))


def fixed_differences(schema: type[BaseModel], old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, old value, new value) of every key that differs and may not; one that is younger than `old` had its default."""
    free = free_keys(schema)
    before, after = {**dict(defaults(schema, new)), **dict(flatten(old))}, dict(flatten(new))
    changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [
        (path, before.get(path), after.get(path)) for path in changed if not any(path == key or path.startswith(f"{key}.") for key in free)
    ]
