"""ldmctl plugins: list, show, check and create plugins."""

import inspect
import json as json_module
import os
import shutil
import sys
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from ldmctl import registry
from ldmctl.cli.options import Json, print_json
from ldmctl.config.base import PluginConfig
from ldmctl.config.documents import Raw, parse_overrides
from ldmctl.config.resolve import merge, plugin_config
from ldmctl.console import Console
from ldmctl.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Look at plugins, check them, create a new one.")
Kind = Annotated[str, typer.Argument(help="autoencoder, discriminator, schedule, ...")]
Name = Annotated[str, typer.Argument(help="The name it is registered under.")]


@app.command("list")
def list_plugins(kind: Annotated[str | None, typer.Argument(help="Only this kind.")] = None, json: Json = False) -> None:
    """Every installed plugin and where it comes from. Imports none of them; a new entry point shows after installing again."""
    kinds = list(registry.GROUPS) if kind is None else [registry.kind_of(kind)]
    rows = [plugin for each in kinds for plugin in registry.plugins(each)]
    ignored = [*registry.strays(), *registry.clashes()]
    if json:
        print_json(
            {
                "ignored": list(registry.strays()),
                "clashes": registry.clashes(),
                "plugins": [{"kind": p.kind, "name": p.name, "target": p.target, "from": p.source} for p in rows],
            }
        )
        return
    lines = [("kind", "name", "class", "from"), *((p.kind, p.name, p.target, p.source) for p in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:  # never cut off: a program may read them
        print("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
    for sentence in ignored:
        Console().warn(sentence)


@app.command()
def show(kind: Kind, name: Name, json: Json = False) -> None:
    """What a plugin is, where its code is, and each of its keys: what it may be, its default and what it means."""
    from ldmctl.config.json_schema import plugin_schema

    plugin = registry.find(registry.kind_of(kind), name)
    schema = plugin_schema(plugin)
    config: type[PluginConfig] = plugin.load().Config  # type: ignore[attr-defined]
    keys = {key: value for key, value in schema["properties"].items() if key != "type"}
    required = [key for key in keys if config.model_fields[key].is_required()]
    file = inspect.getsourcefile(plugin.load())
    if json:
        origin = {"kind": plugin.kind, "name": plugin.name, "class": plugin.target, "from": plugin.source, "file": file}
        print_json({**origin, "description": schema["description"], "keys": keys, "required": required, "$defs": schema.get("$defs", {})})
        return
    print(f"{plugin.kind} {plugin.name}, from {plugin.source}: {file}")
    say(schema["description"], indent="")
    for key, value in keys.items():
        default = f"default {in_yaml(value['default'])}" if "default" in value else "required" if key in required else "default computed"
        print(f"\n  {key}")
        say(f"{words(value, schema.get('$defs', {}))}; {default}")
        say(value.get("description", ""))
    if not keys:
        print("It has no keys.")


@app.command()
def check(
    kind: Kind,
    name: Name,
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys of its Config.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the frames of what a plugin raises.")] = False,
) -> None:
    """Try whether a plugin keeps its kind's promises, on tiny shapes."""
    from ldmctl.testing import check as keep_promises

    options = merge(parse_overrides(settings or []))
    kind = registry.kind_of(kind)
    loaded = registry.load(kind, name)
    plugin_config(kind, {**options, "type": name})  # keys are refused in the words of the verbs
    options.pop("type", None)
    with redirect_stdout(sys.stderr):
        keep_promises(kind, loaded, **options)
    print(f"{kind} {name} keeps its promises.")


@app.command()
def new(
    kind: Kind,
    name: Annotated[str, typer.Argument(help="The name it will be registered under, such as my-schedule.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder [default: ldmctl-NAME].")] = None,
) -> None:
    """Write a package with one working plugin to start from."""
    from ldmctl.template.package import write_package

    folder = out or Path(f"ldmctl-{name}")
    if os.path.lexists(folder):
        raise ConfigError(f"{folder} exists already; name another --out.")
    if (home := next((parent for parent in folder.absolute().parents if (parent / "run.json").exists()), None)) is not None:
        raise ConfigError(f"--out {folder} lies in {home}, which is a run folder or a cache; name another --out.")
    kind = registry.kind_of(kind)
    try:
        files = write_package(folder, kind, name)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}. Name another --out.") from None
    print("\n".join(f"wrote {file}" for file in files))
    print(f"Next: pip install -e {folder} && ldmctl plugins check {kind} {name}")


def say(text: str, *, indent: str = "      ") -> None:
    """A paragraph, in lines on a terminal and on one line elsewhere."""
    width = min(shutil.get_terminal_size().columns, 120) if sys.stdout.isatty() else sys.maxsize
    if text:
        print(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


NOUNS = {
    "integer": ("integer", "integers"),
    "number": ("number", "numbers"),
    "string": ("text", "texts"),
    "boolean": ("true or false", "values true or false"),
    "array": ("list", "lists"),
    "object": ("mapping", "mappings"),
    "null": ("null", "null"),
}


def words(key: Raw, definitions: Raw, *, many: bool = False) -> str:
    """What the JSON Schema of a key allows, such as `integer above 0 or null`."""
    if "$ref" in key:
        return words(definitions.get(key["$ref"].rpartition("/")[2], {}), definitions, many=many)
    if "anyOf" in key:
        return " or ".join(dict.fromkeys(words(each, definitions, many=many) for each in key["anyOf"]))
    if "enum" in key or "const" in key:
        choices = key.get("enum", [key.get("const")])
        return ("any of " if many else "one of " if len(choices) > 1 else "") + ", ".join(map(in_yaml, choices))
    noun = NOUNS.get(key.get("type", ""), ("anything", "anything"))[many]
    if "items" in key:
        noun += f" of {words(key['items'], definitions, many=True)}"
    return noun + limits(key)


def limits(key: Raw) -> str:
    """The range of a number, or of a list's length; '' without."""
    said = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {key[name]:g}" for name, word in said.items() if name in key]
    counts = [f"{word} {key[name]}" for name, word in (("minItems", "at least"), ("maxItems", "at most")) if name in key]
    return (f" {' and '.join(bounds)}" if bounds else "") + (f", {' and '.join(counts)} of them" if counts else "")


def in_yaml(value: Any) -> str:
    """A value as it is written in a config."""
    return value if isinstance(value, str) and value else json_module.dumps(value, ensure_ascii=False)
