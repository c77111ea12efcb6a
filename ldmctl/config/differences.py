"""Which keys of a config may change when a run is resumed, and which of them did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ldmctl import registry
from ldmctl.config.base import section_of, slot_of, value_before
from ldmctl.config.resolve import resolve
from ldmctl.errors import LdmctlError

PLACES = {"path", "paths", "root", "folder", "folders", "archive", "file", "files", "url"}  # names of keys that say where pictures lie


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", 1) for each leaf of a nested dict."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict that `flatten` has these leaves of."""
    out: dict[str, Any] = {}
    for path, value in values.items():
        *sections, key = path.split(".")
        place = out
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return out


def free_keys(schema: type[BaseModel], prefix: str = "", *, values: Mapping[str, Any] | None = None, mark: str = "free") -> set[str]:
    """Paths of the keys, or sections, that may change when a run is resumed; with `values` also those of the plugins that they name.

    Another `mark` asks for keys with that one: `noted`, `place`.
    """
    out = set()
    for name, field in schema.model_fields.items():
        extra = field.json_schema_extra
        there = (values or {}).get(name)
        within = there if isinstance(there, Mapping) else {}
        if isinstance(extra, dict) and extra.get(mark):
            out.add(f"{prefix}{name}")
        elif (section := section_of(field)) is not None:
            out |= free_keys(section, f"{prefix}{name}.", values=within, mark=mark)
        elif (slot := slot_of(field)) is not None and "type" in within:
            plugin: type[BaseModel] = registry.load(slot.kind, within["type"]).Config  # type: ignore[attr-defined]
            out |= free_keys(plugin, f"{prefix}{name}.", values=within, mark=mark)
            if slot.kind == "dataset" and mark != "noted":  # of plugins that mark none: pictures are known by their stamps
                out |= {f"{prefix}{name}.{key}" for key in PLACES & plugin.model_fields.keys()}
    return out


def defaults(schema: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", what a run made before it did, as JSON has it) of each key that need not be given, those of plugins that `values` names among them."""
    for name, field in schema.model_fields.items():
        there = values.get(name)
        within = there if isinstance(there, Mapping) else {}
        if (section := section_of(field)) is not None:
            yield from defaults(section, within, f"{prefix}{name}.")
        elif (slot := slot_of(field)) is not None:
            if "type" in within:
                yield from defaults(registry.load(slot.kind, within["type"]).Config, within, f"{prefix}{name}.")  # type: ignore[attr-defined]
        elif not field.is_required() and name != "type":
            yield f"{prefix}{name}", to_jsonable_python(value_before(field))


def younger(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", what a run did that was made before it) of each key whose default is something else."""
    for name, field in schema.model_fields.items():
        if (section := section_of(field)) is not None:
            yield from younger(section, f"{prefix}{name}.")
        elif not field.is_required() and slot_of(field) is None and value_before(field) != field.get_default(call_default_factory=True):
            yield f"{prefix}{name}", value_before(field)


def as_of_today(schema: type[BaseModel], old: Mapping[str, Any]) -> Mapping[str, Any]:
    """An older config with the names and forms that its keys have today; as it is where today's schema does not take it."""
    try:
        return resolve(schema, [dict(old)], source="").model_dump(mode="json")  # type: ignore[type-var]
    except LdmctlError:
        return old


def fixed_differences(schema: type[BaseModel], old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, old value, new value) of every key that differs and may not; one that is younger than `old` had its default, or what it says of runs made before."""
    free = free_keys(schema, values=new)
    return [each for each in differences(schema, old, new) if not _is_below(each[0], free)]


def noted_differences(schema: type[BaseModel], old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The same of every key that differs, may, and is worth a note, since it decides what is learned."""
    noted = free_keys(schema, values=new, mark="noted")
    return [each for each in differences(schema, old, new) if _is_below(each[0], noted)]


def placeless(schema: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the keys that say where something lies: what may be handed on, and is the same on every machine."""
    places = free_keys(schema, values=values, mark="place")
    return nested({path: value for path, value in flatten(values) if not _is_below(path, places)})


def differences(schema: type[BaseModel], old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, old value, new value) of every key that differs."""
    did, wrote, after = dict(defaults(schema, new)), dict(flatten(old)), dict(flatten(new))
    before = {**did, **dict(flatten(as_of_today(schema, old)))}
    before |= {path: did[path] for path, _ in younger(schema) if path not in wrote and path in did}
    return [(path, before.get(path), after.get(path)) for path in {**before, **after} if before.get(path) != after.get(path)]


def _is_below(path: str, keys: set[str]) -> bool:
    """Whether a path is one of these keys or lies in one."""
    return any(path == key or path.startswith(f"{key}.") for key in keys)
