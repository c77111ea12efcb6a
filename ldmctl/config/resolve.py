"""From layers of plain dicts to one validated config, fully spelled out.

Later layers are stronger. Only the plugins that the layers name are imported, and
their own `Config` checks their keys together with all the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError, create_model

from ldmctl import registry
from ldmctl.config.base import Config, PluginConfig, Slot, section_of, slot_of
from ldmctl.config.documents import Raw
from ldmctl.errors import ConfigError, LdmctlError, did_you_mean, with_article

Schema = TypeVar("Schema", bound=Config)
NOTHING = ("none", "no", "off", "false", "nothing")  # what people write where null switches a plugin off


def resolve(schema: type[Schema], layers: Sequence[Raw], *, source: str) -> Schema:
    """The validated config of these layers, weakest first; `source` names them in a ConfigError."""
    raw = merge([spell_out(schema, layer) for layer in layers])
    concrete = _narrow(schema, raw, at="")
    try:
        return concrete.model_validate(raw)
    except ValidationError as error:
        lines = "\n  ".join(explained(error, concrete))
        raise ConfigError(f"{source} does not describe {with_article(schema.verb)} run:\n  {lines}") from None  # type: ignore[attr-defined]


def plugin_config(kind: str, raw: Mapping[str, Any]) -> Any:
    """The Config of one plugin from its dict, as found in the header of a file."""
    concrete: type[PluginConfig] = registry.load(kind, raw["type"]).Config  # type: ignore[attr-defined]
    try:
        return concrete.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{kind} {raw['type']!r} cannot be made:\n  " + "\n  ".join(explained(error, concrete))) from None


def explained(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """A line for each key that is wrong: its path, what is wrong, and the nearest right name."""
    found: dict[Any, list[Any]] = {}
    for item in error.errors():
        loc = tuple(part for part in item["loc"] if item["type"] == "extra_forbidden" or not _is_alternative(part))
        found.setdefault((loc, item["type"] if item["type"] in ALONE else ""), []).append({**item, "loc": loc})
    return list(dict.fromkeys(_explain(_together(items), schema) for items in found.values()))


ALONE = ("missing", "extra_forbidden", "model_type", "model_attributes_type")  # kinds of mistakes that have a sentence of their own


def _is_alternative(part: Any) -> bool:
    """Whether a part of a path is pydantic's word for one of the types that a key may have."""
    return isinstance(part, str) and (part in ("int", "float", "str", "bool", "none") or "[" in part)


def _together(items: Sequence[Any]) -> Any:
    """One mistake of those that a value makes against each of the types that its key may have."""
    wants = list(dict.fromkeys(item["msg"].partition(", unable to")[0] for item in items))
    if len(wants) == 1:
        return items[0]
    rest = [want.removeprefix("Input should be ") for want in wants[1:]]
    return {**items[0], "msg": f"{', '.join([wants[0], *rest[:-1]])} or {rest[-1]}"}


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
    """The same layer with `slot: name` written as `slot: {type: name}`, each plugin by the one name that it has in a config; so for a
    section that has a `type`. Keys have the names of today."""
    raw = out = renamed(schema, raw)
    for name, field in schema.model_fields.items():
        if name not in raw:
            continue
        section, slot, given = section_of(field), slot_of(field), raw[name]
        if slot is not None and slot.many and isinstance(given, list):
            out[name] = [_plugin_spelled_out(slot, each) for each in given]
        elif slot is not None:
            out[name] = _plugin_spelled_out(slot, given)
        elif section is not None and "type" in section.model_fields and isinstance(given, str):
            out[name] = {"type": given}
        elif section is not None and isinstance(given, dict):
            out[name] = spell_out(section, raw[name])
    return out


def renamed(schema: type[BaseModel], raw: Raw) -> Raw:
    """A copy in which keys that moved stand where they are now; what stands there already is stronger."""
    out = dict(raw)
    for before, now in getattr(schema, "renamed", {}).items():
        if before in out:
            section, key = now.split(".")
            there = out.get(section)
            out[section] = {key: out.pop(before), **(there if isinstance(there, dict) else {})}
    return out


def _plugin_spelled_out(slot: Slot, given: Any) -> Any:
    """`name` or `{type: name, ...}` as the second, with the one name that the plugin has in a config; anything else as it is."""
    if not isinstance(given, str | dict):
        return given
    written = {"type": given} if isinstance(given, str) else dict(given)
    if isinstance(written.get("type"), str):
        written["type"] = registry.plain(slot.kind, written["type"])
    return written


def _narrow(schema: type[BaseModel], raw: Raw, *, at: str) -> type[Any]:
    """The schema with each slot narrowed to the Config of the plugin it names. Fills in the names of default plugins."""
    narrowed: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        if (slot := slot_of(field)) is not None and slot.many:
            if name in raw and raw[name] is not None:
                narrowed[name] = (_several(slot, name, raw, at), ...)
        elif slot is not None:
            given = raw.get(name)
            named = given.get("type") if isinstance(given, dict) else given
            if isinstance(named, str) and named.lower() in NOTHING and named not in _names(slot):
                raise ConfigError(f"{at}{name}={named} {_no_plugin(field)}.")
            if (plugin := _plugin_of(slot, name, raw, at)) is not None:
                narrowed[name] = (plugin.Config, ...)  # type: ignore[attr-defined]
        elif (section := section_of(field)) is not None and isinstance(raw.get(name, {}), dict):
            inner = raw.get(name, {})
            concrete = _narrow(section, inner, at=f"{at}{name}.")
            if concrete is not section:
                raw[name] = inner
                narrowed[name] = (concrete, ...)
    return create_model(schema.__name__, __base__=schema, **narrowed) if narrowed else schema


def _names(slot: Slot) -> list[str]:
    return [plugin.name for plugin in registry.plugins(slot.kind)]


def _no_plugin(field: Any) -> str:
    """What is to be said of a value of a slot that is none: `names no tracker: take one of csv, wandb, or null for none`."""
    slot = slot_of(field)
    assert slot is not None
    none = ", or null for none" if type(None) in get_args(field.annotation) else ""
    return f"names no {slot.kind}: take one of {', '.join(_names(slot))}{none}"


def _several(slot: Slot, name: str, raw: Raw, at: str) -> Any:
    """The type of a tuple of plugins' configs; one alone becomes a list of one."""
    raw[name] = given = raw[name] if isinstance(raw[name], list) else [raw[name]]
    layers = [{f"{name}.{place}": each} for place, each in enumerate(given)]
    plugins = [_plugin_of(slot, f"{name}.{place}", layer, at) for place, layer in enumerate(layers)]
    configs = tuple(PluginConfig if plugin is None else plugin.Config for plugin in plugins)  # type: ignore[attr-defined]
    return tuple[configs] if configs else tuple[()]  # type: ignore[valid-type]


def _plugin_of(slot: Slot, name: str, raw: Raw, at: str) -> type | None:
    if name not in raw and slot.default is not None:
        raw[name] = {}
    given = raw.get(name)
    if not isinstance(given, dict):  # absent, null or nonsense: pydantic says so
        return None
    if given.get("type") is None:
        if slot.default is None or "type" in given:
            raise ConfigError(f"{at}{name}.type is missing: name {with_article(slot.kind)}, one of {', '.join(_names(slot))}.")
        raw[name] = given = {"type": slot.beside(raw) or slot.default, **given}
    return registry.load(slot.kind, str(given["type"]))


def _explain(item: Any, schema: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{path}: is missing"
    if item["type"] in ("model_type", "model_attributes_type"):
        if (field := _field_at(item["loc"], schema)) is not None and slot_of(field) is not None:
            return f"{path}: {_no_plugin(field)} (got {item['input']!r})"
        return f"{path}: has keys of its own, or is {{}} for their defaults (got {item['input']!r})"
    if item["type"] != "extra_forbidden":
        said = item["msg"].removeprefix("Value error, ")
        got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
        return (f"{path}: " if path else "") + f"{said[:1].lower()}{said[1:]}{got}"
    owner: Any = schema
    slot: Slot | None = None
    for key in item["loc"][:-1]:
        if isinstance(key, int):  # one of several plugins
            owner = get_args(owner)[key]
            continue
        field = owner.model_fields.get(key)
        slot = _declared_slot(owner, key)
        several = field is not None and get_origin(field.annotation) is tuple
        owner = None if field is None else field.annotation if several or slot_of(field) else section_of(field)
        if owner is None:
            return f"{path}: unknown key."
    keys = [key for key in owner.model_fields if key != "type"]
    wanted = str(item["loc"][-1])
    if slot is not None and (others := _with_key(slot.kind, wanted)):
        hint = f"{did_you_mean(wanted, keys)} It is a key of {', '.join(others)}."
    else:
        hint = f" Did you mean {found!r}?" if (found := _elsewhere(wanted, schema)) else did_you_mean(wanted, keys)
    return f"{path}: unknown key.{hint} Keys here: {', '.join(keys)}."


def _field_at(loc: Sequence[Any], schema: type[BaseModel]) -> Any:
    """The field that a path through sections leads to, None where it leads elsewhere."""
    for key in loc[:-1]:
        field = schema.model_fields.get(key)
        section = None if field is None else section_of(field)
        if section is None:
            return None
        schema = section
    return schema.model_fields.get(loc[-1]) if loc else None


def _declared_slot(owner: type[BaseModel], key: str) -> Slot | None:
    """The slot that a key of a schema is, also of one narrowed to the plugins it names."""
    fields = (base.model_fields.get(key) for base in owner.__mro__ if issubclass(base, BaseModel) and base is not BaseModel)
    return next((slot for field in fields if field is not None and (slot := slot_of(field)) is not None), None)


def _with_key(kind: str, key: str) -> list[str]:
    """The plugins of a kind that have this key."""
    found = []
    for plugin in registry.plugins(kind):
        with suppress(LdmctlError):  # a broken one has none
            if key in registry.load(kind, plugin.name).Config.model_fields:  # type: ignore[attr-defined]
                found.append(plugin.name)
    return found


def _elsewhere(key: str, schema: type[BaseModel]) -> str:
    """Where a config has a key of this name, at its top or in one of its sections, or ''."""
    if key in schema.model_fields:
        return key
    sections = ((name, section_of(field)) for name, field in schema.model_fields.items())
    return next((f"{name}.{key}" for name, section in sections if section and key in section.model_fields), "")
