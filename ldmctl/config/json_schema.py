"""The JSON Schema of a config file, with the keys of every plugin there is, for editors and for checks.

It describes a layer, such as a preset: any key may be left out, and an unknown one is an error, also within a plugin.
"""

import inspect
import re
from typing import Annotated, Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from ldmctl import registry
from ldmctl.config.base import Config, PluginConfig, Slot, section_of, slot_of
from ldmctl.config.documents import Raw
from ldmctl.config.schemas.shared import Image
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.errors import PluginError, with_article

DRAFT = "https://json-schema.org/draft/2020-12/schema"
NAMED_BELOW = ("dataset", "conditioner")  # kinds: a data preset or a cache may have named their type, so a file need not


class Data(Config):
    """A data preset: where the pictures are, and how they are prepared."""

    dataset: Annotated[PluginConfig, Slot("dataset")]
    image: Image = Image()


SUBJECTS: dict[str, type[Config]] = {**VERBS, "data": Data}


def config_schema(subject: str, *, built_in: bool = False) -> tuple[Raw, list[str]]:
    """(JSON Schema of a verb's config files or of `data` presets; for each plugin that is left out, why).

    With `built_in` only the plugins that come with ldmctl are in it.
    """
    broken: list[str] = []
    found: dict[str, dict[str, Raw]] = {}

    def plugins(kind: str) -> dict[str, Raw]:
        if kind not in found:
            found[kind], problems = _plugins_of(kind, built_in=built_in)
            broken.extend(problems)
        return found[kind]

    model = SUBJECTS[subject]
    document = _keys(model, "#/$defs/{model}")
    definitions = document.pop("$defs", {})
    definitions.pop("PluginConfig", None)
    for section in _sections(model):
        place = document if section is model else definitions[section.__name__]
        for name, field in section.model_fields.items():
            if (slot := slot_of(field)) is not None:
                below = slot.kind in NAMED_BELOW and model is not Data
                place["properties"][name] = _slot(field, slot, plugins(slot.kind), named_below=below)
            _say_whether_free(place["properties"][name], field)
    for kind in found.values():
        for plugin in kind.values():
            definitions |= plugin.pop("$defs", {})
    title = "ldmctl data preset" if model is Data else f"ldmctl {subject}"
    return {"$schema": DRAFT, "title": title, **document, "$defs": definitions}, broken


def plugin_schema(plugin: registry.Plugin) -> Raw:
    """JSON Schema of a plugin's keys, `type` among them, none of them required. A broken plugin is a PluginError."""
    loaded = plugin.load()
    prefix = re.sub(r"[^\w-]", "_", f"{plugin.kind}-{plugin.name}")
    keys = _keys(loaded.Config, f"#/$defs/{prefix}-{{model}}")  # type: ignore[attr-defined]
    definitions = {f"{prefix}-{name}": value for name, value in keys.pop("$defs", {}).items()}
    own = {name: value for name, value in keys["properties"].items() if name != "type"}
    return {
        **keys,
        "title": f"{plugin.kind} {plugin.name}",
        "description": summary(loaded),
        "properties": {"type": {"const": registry.word_for(plugin), "description": f"which {plugin.kind}"}, **own},
        **({"$defs": definitions} if definitions else {}),
    }


def summary(plugin: type) -> str:
    """The first paragraph of a plugin's own docstring, else of its module's, on one line; '' without either."""
    text = plugin.__doc__ or getattr(inspect.getmodule(plugin), "__doc__", None) or ""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


class _Plain(GenerateJsonSchema):
    """Pydantic's schema without titles made of names; a type that JSON has no word for may be anything."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
        return {}


def _keys(model: type[BaseModel], references: str) -> Raw:
    document = model.model_json_schema(by_alias=False, ref_template=references, schema_generator=_Plain)
    for part in (document, *document.get("$defs", {}).values()):
        part.pop("title", None)
        part.pop("required", None)  # another layer may give it
    return document


def _sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A config class and, at any depth, the sections in it."""
    inner = [section for field in model.model_fields.values() if (section := section_of(field)) is not None]
    return list(dict.fromkeys([model, *(each for section in inner for each in _sections(section))]))


def _plugins_of(kind: str, *, built_in: bool) -> tuple[dict[str, Raw], list[str]]:
    """(the schema of each plugin of a kind, by name; why others are left out)."""
    schemas, broken = {}, []
    for plugin in registry.plugins(kind):
        if built_in and plugin.source.split()[0] != "ldmctl":
            continue
        try:
            schemas[registry.word_for(plugin)] = plugin_schema(plugin)
        except PluginError as error:
            broken.append(str(error))
    return schemas, list(dict.fromkeys(broken))


def _slot(field: Any, slot: Slot, plugins: dict[str, Raw], *, named_below: bool) -> Raw:
    """What may stand at a slot: a name, a plugin's keys with its `type`, or null where it may stay empty."""
    unnamed = set(plugins) if named_below else {slot.default}  # whose keys may stand there without `type`
    variants = [keys if name in unnamed else {**keys, "required": ["type"]} for name, keys in plugins.items()]
    optional = type(None) in get_args(field.annotation)
    default = slot.default if field.is_required() else getattr(field.default, "type", None)
    several = [{"type": "array", "items": {"anyOf": [{"enum": list(plugins)}, *variants]}}] if slot.many else []
    said = field.description or f"{with_article(slot.kind)}: its name, or `type` and its keys"
    return {
        "description": said,
        **({} if default is None and not optional else {"default": default}),
        "anyOf": [{"enum": list(plugins)}, *variants, *several, *([{"type": "null"}] if optional else [])],
    }


def _say_whether_free(key: Raw, field: Any) -> None:
    for mark in ("noted", "place", "before"):
        key.pop(mark, None)
    if key.pop("free", False) or (isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("free")):
        key["description"] = f"{key.get('description') or field.annotation.__doc__}; may change when a run is resumed"
