"""Which keys of a run's config are not at their defaults, and in which keys several runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ldmctl import registry
from ldmctl.config.base import section_of, slot_of
from ldmctl.config.differences import as_of_today, defaults, flatten, younger
from ldmctl.errors import LdmctlError

ABSENT = "(not there)"  # of a key that a config lacks, such as one of another plugin


def whole(schema: type[BaseModel], config: Mapping[str, Any]) -> dict[str, Any]:
    """{path: value} of every key, those that the config is older than among them; as it stands there where today's ldmctl does not take it."""
    wrote = dict(flatten(config))
    try:
        did = dict(defaults(schema, config))
    except LdmctlError:  # a plugin that is not here
        return wrote
    now = dict(flatten(as_of_today(schema, config)))
    return now | {path: did[path] for path, _ in younger(schema) if path not in wrote and path in did and path in now}


def usual(schema: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, today's default) of each key that has one, by the plugins that `values` names; None for the type of a slot that is empty by default."""
    for name, field in schema.model_fields.items():
        there = values.get(name)
        within = there if isinstance(there, Mapping) else {}
        if (section := section_of(field)) is not None:
            yield from usual(section, within, f"{prefix}{name}.")
        elif (slot := slot_of(field)) is not None:
            if not field.is_required() or slot.default:
                yield (f"{prefix}{name}.type" if "type" in within else f"{prefix}{name}"), slot.default
            if "type" in within:
                yield from usual(registry.load(slot.kind, within["type"]).Config, within, f"{prefix}{name}.")  # type: ignore[attr-defined]
        elif not field.is_required() and name != "type":
            yield f"{prefix}{name}", to_jsonable_python(field.get_default(call_default_factory=True))


def beside_defaults(schema: type[BaseModel], config: Mapping[str, Any], recorded: Any = None) -> list[tuple[str, Any, Any]]:
    """(path, value, default or ABSENT) of every key of a config, in its order. Where a plugin is missing no default is known.

    With the defaults that a run `recorded`, no plugin, and so no torch, is imported to learn them.
    """
    if isinstance(recorded, Mapping):
        return [(path, value, recorded.get(path, ABSENT)) for path, value in flatten(config)]
    try:
        known = dict(usual(schema, config))
    except LdmctlError:
        known = {}
    return [(path, value, known.get(path, ABSENT)) for path, value in whole(schema, config).items()]


def differing(schema: type[BaseModel] | None, configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """(path, the value in each config or ABSENT) of every key in which they are not all the same; without a schema, as they stand there."""
    flat = [dict(flatten(config)) if schema is None else whole(schema, config) for config in configs]
    paths = dict.fromkeys(path for each in flat for path in each)
    rows = [(path, [each.get(path, ABSENT) for each in flat]) for path in paths]
    return [(path, values) for path, values in rows if any(value != values[0] for value in values)]
