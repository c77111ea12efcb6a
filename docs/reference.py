"""Write docs/reference/ from the code: every key of every verb and plugin, the presets and the command line.

python docs/reference.py           writes the pages
python docs/reference.py --check   compares them, names the stale ones and exits with 1
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ldmctl import protocols, registry
from ldmctl.config import presets
from ldmctl.config.base import PluginConfig, section_of, slot_of
from ldmctl.config.differences import free_keys
from ldmctl.config.schemas.verbs import VERBS

OUT = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/reference.py from the code. Do not edit. -->"
RESUMED = ("fit-ae", "encode-dataset", "fit-diffusion")  # verbs with a folder that the same command continues
FOLDERS = {"data": "`--data NAME`", "fit-ae": "`ldmctl fit-ae --config NAME`", "fit-diffusion": "`ldmctl fit-diffusion --config NAME`"}
BUILT_IN = "ldmctl_plugins."
HELP = ("--help", "-h")


def pages() -> dict[str, str]:
    """The text of every page by its path below docs/reference/."""
    out = {f"{verb}.md": verb_page(verb) for verb in VERBS}
    out |= {f"plugins/{kind}.md": kind_page(kind) for kind in registry.GROUPS}
    return {**out, "plugins.md": plugins_page(), "presets.md": presets_page(), "cli.md": cli_page()}


# -- verbs ---------------------------------------------------------------------------


def verb_page(verb: str) -> str:
    """Every key of a verb, a table for each section of its config."""
    schema = VERBS[verb]
    free = free_keys(schema) if verb in RESUMED else None
    sentence = (schema.__doc__ or "").partition(": ")[2]
    parts = [
        f"# {verb}",
        NOTE,
        f"{sentence[:1].upper()}{sentence[1:]}",
        f"Its options are on [the command line page](cli.md#ldmctl-{verb}).",
    ]
    if free is not None:
        parts.append(
            "Keys marked *free* may change when the command is run again on the same folder; any other change is refused with exit code 6."
        )
    parts += [f"## {title}\n\n{doc}\n\n{table}" if doc else f"## {title}\n\n{table}" for title, doc, table in sections(schema, free)]
    return join(parts)


def sections(schema: type[BaseModel], free: set[str] | None, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(title, first docstring sentence, table) of a config class and of each one nested in it."""
    nested = {name: section for name, field in schema.model_fields.items() if (section := section_of(field)) is not None}
    rows = key_rows(schema, prefix, free, leave_out=nested)
    if rows:
        yield (
            (f"{prefix.rstrip('.')}" if prefix else "Top level"),
            first_sentence(schema.__doc__) if prefix else "",
            key_table(rows, free is not None),
        )
    for name, section in nested.items():
        yield from sections(section, free, f"{prefix}{name}.")


def key_rows(schema: type[BaseModel], prefix: str, free: set[str] | None, leave_out: Mapping[str, Any]) -> list[list[str]]:
    """path, values, default, free or not, meaning of each key of one config class."""
    properties = schema.model_json_schema().get("properties", {})
    rows = []
    for name, field in schema.model_fields.items():
        if name in leave_out or (name == "type" and issubclass(schema, PluginConfig)):
            continue
        path = f"{prefix}{name}"
        if (slot := slot_of(field)) is not None:
            values = f"{'plugins' if slot.many else 'a plugin'}: [{slot.kind}](plugins/{slot.kind}.md)" + (
                "" if slot.many or needed(field) else " or null"
            )
            default = slot.default or ("required" if field.is_required() else "[]" if slot.many else "null")
            meaning = field.description or promise_of(slot.kind)
        else:
            values = values_of(properties.get(name, {}))
            default = "required" if field.is_required() else literal(field.get_default(call_default_factory=True))
            meaning = field.description or ""
        is_free = free is not None and any(path == key or path.startswith(f"{key}.") for key in free)
        marks = [] if free is None else ["free" if is_free else ""]
        rows.append([f"`{path}`", values, code(default), *marks, cell(meaning)])
    return rows


def needed(field: Any) -> bool:
    """Whether a slot must be filled."""
    return type(None) not in get_args(field.annotation)


def key_table(rows: Sequence[Sequence[str]], with_free: bool) -> str:
    """A table of keys."""
    return table(["key", "values", "default", *(["resume"] if with_free else []), "meaning"], rows)


# -- values in words -------------------------------------------------------------------


def values_of(schema: Mapping[str, Any]) -> str:
    """What a key may be, from its JSON schema: `number > 0`, `l1`, `l2`, `list of integer >= 1`."""
    if "anyOf" in schema:
        bounds = {key: value for key, value in schema.items() if key in ("ge", "gt", "le", "lt")}
        options = list(dict.fromkeys(values_of({**option, **bounds}) for option in schema["anyOf"]))
        numbers = {option.replace("number", "integer") for option in options if option.startswith("number")}
        return " or ".join(option for option in options if option not in numbers)  # every integer is a number
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return "[" + "; ".join(values_of(item) for item in schema["prefixItems"]) + "]"
        return f"list of {values_of(schema.get('items', {}))}"
    if kind in ("integer", "number"):
        return f"{kind}{bounds_of(schema, whole=kind == 'integer')}"
    return {"boolean": "true, false", "string": "text", "null": "null", "object": "mapping"}.get(str(kind), "any")


def bounds_of(schema: Mapping[str, Any], *, whole: bool) -> str:
    """` > 0`, ` >= 1`, ` 0 to 1`, or nothing."""
    low = schema.get("minimum", schema.get("ge"))
    above = schema.get("exclusiveMinimum", schema.get("gt"))
    high = schema.get("maximum", schema.get("le"))
    below = schema.get("exclusiveMaximum", schema.get("lt"))
    if whole and above is not None:
        low, above = above + 1, None
    if low is not None and high is not None:
        return f" {low:g} to {high:g}"
    words = [f"{sign} {value:g}" for sign, value in (("≥", low), (">", above), ("≤", high), ("<", below)) if value is not None]
    return f" {', '.join(words)}" if words else ""


def literal(value: Any) -> str:
    """A default as it would be written in YAML."""
    plain = to_jsonable_python(value)
    if isinstance(plain, float):
        return f"{plain:g}"
    written = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return written.removesuffix("...").strip()


def code(word: str) -> str:
    """A value in code marks; `required` is none."""
    return word if word == "required" else f"`{word}`"


# -- plugins ---------------------------------------------------------------------------


def built_in(kind: str) -> list[registry.Plugin]:
    """The plugins of a kind that ldmctl brings along."""
    return [plugin for plugin in registry.plugins(kind) if plugin.target.startswith(BUILT_IN)]


def kind_page(kind: str) -> str:
    """Every built-in plugin of a kind with its keys."""
    decides = any(path not in free_keys(VERBS[verb]) for verb in RESUMED for path in slots_of(VERBS[verb], kind))
    parts = [f"# {kind}", NOTE, cell(promise_of(kind)), slots_sentence(kind), resume_sentence(kind, decides=decides)]
    for plugin in built_in(kind):
        loaded = plugin.load()
        rows = key_rows(loaded.Config, "", free_of(kind, plugin.name) if decides else None, leave_out={})  # type: ignore[attr-defined]
        parts.append(f"## {plugin.name}\n\n{cell(doc_of(loaded))}")
        parts.append(key_table(rows, decides) if rows else "It has no keys.")
    return join(parts)


def free_of(kind: str, name: str) -> set[str]:
    """The keys of a plugin that may change when a run is resumed, as the verbs see them that continue one."""
    found: set[str] = set()
    for verb in RESUMED:
        for path in slots_of(VERBS[verb], kind):
            values: dict[str, Any] = {"type": name}
            for part in reversed(path.split(".")):
                values = {part: values}
            found |= {key.removeprefix(f"{path}.") for key in free_keys(VERBS[verb], values=values) if key.startswith(f"{path}.")}
    return found


def resume_sentence(kind: str, *, decides: bool) -> str:
    """What of a plugin may change when a command is run again on its folder."""
    named = [verb for verb in RESUMED if any(slots_of(VERBS[verb], kind))]
    if not named:
        return ""
    if not decides:
        return f"Another one, or other keys of it, may be taken when {' or '.join(named)} is run again on the same folder."
    return "Keys marked *free* may change when the command is run again on the same folder; any other change is refused with exit code 6."


def slots_sentence(kind: str) -> str:
    """Where a plugin of this kind is named."""
    slots = [f"`{path}` of [{verb}](../{verb}.md)" for verb, schema in VERBS.items() for path in slots_of(schema, kind)]
    return f"Named by {', '.join(slots)}. Its keys follow with a dot: `KEY.NAME=VALUE`." if slots else ""


def slots_of(schema: type[BaseModel], kind: str, prefix: str = "") -> Iterator[str]:
    """Paths of the slots that take this kind."""
    for name, field in schema.model_fields.items():
        if (slot := slot_of(field)) is not None and slot.kind == kind:
            yield f"{prefix}{name}"
        elif (section := section_of(field)) is not None:
            yield from slots_of(section, kind, f"{prefix}{name}.")


def plugins_page() -> str:
    """All kinds and names in one table."""
    rows = [
        [f"[{kind}](plugins/{kind}.md)", ", ".join(f"`{plugin.name}`" for plugin in built_in(kind)), cell(promise_of(kind))]
        for kind in registry.GROUPS
    ]
    intro = (
        "What ldmctl brings along, by kind. `ldmctl plugins list` shows what is installed, `ldmctl plugins show KIND NAME` the keys of one."
    )
    return join(["# Built-in plugins", NOTE, intro, table(["kind", "built in", "what it is"], rows)])


def promise_of(kind: str) -> str:
    """The first sentence of a kind's protocol."""
    return first_sentence(getattr(protocols, kind.title()).__doc__)


def doc_of(plugin: type) -> str:
    """The first sentence of a plugin: of its module, else of the class itself; never one that it inherits."""
    module = sys.modules[plugin.__module__].__doc__
    return first_sentence(module or plugin.__dict__.get("__doc__"))


# -- presets and command line ----------------------------------------------------------


def presets_page() -> str:
    """Each preset with its first line."""
    parts = ["# Presets", NOTE, "`ldmctl configs list` lists them, `ldmctl configs show FOLDER/NAME` prints one with its comments."]
    for folder, used in FOLDERS.items():
        rows = [[f"`{name}`", cell(first_comment(presets.text(folder, name)))] for name in presets.names(folder)]
        parts.append(f"## {folder}\n\nUsed by {used}.\n\n{table(['name', 'what it is'], rows)}")
    return join(parts)


def first_comment(document: str) -> str:
    """The first comment of a YAML document that speaks to people, not to editors."""
    lines = (line.lstrip("# ") for line in document.splitlines() if line.startswith("#"))
    return next((line for line in lines if line and not line.startswith("yaml-language-server:")), "")


def application() -> Any:
    """The command group of the ldmctl executable."""
    from ldmctl import cli

    app = getattr(cli, "app", None)
    if not isinstance(app, typer.Typer):  # the package's module of that name
        from ldmctl.cli.app import app
    return typer.main.get_command(app)


def commands(group: Any, name: str = "ldmctl") -> Iterator[tuple[str, Any]]:
    """("ldmctl cache info", command) of every command, depth first."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def cli_page() -> str:
    """Arguments and options of every command."""
    parts = ["# Command line", NOTE, "Every command also has `--help` (`-h`). `ldmctl --version` prints the version."]
    for name, command in commands(application()):
        usage = " ".join([name, "[OPTIONS]", *(metavar(each) for each in command.params if each.param_type_name == "argument")])
        parts.append(f"## {name}\n\n{cell(command.help or '')}\n\n```text\n{usage}\n```")
        rows = [option_row(each) for each in command.params if not set(each.opts) & set(HELP) and not getattr(each, "hidden", False)]
        if rows:
            parts.append(table(["option", "values", "default", "meaning"], rows))
    return join(parts)


def metavar(parameter: Any) -> str:
    """An argument as its usage line shows it."""
    word = parameter.metavar or parameter.name.upper()
    return word if parameter.required or word.startswith("[") else f"[{word}]"


def option_row(parameter: Any) -> list[str]:
    """names, values, default and help of one option or argument."""
    names = ", ".join(f"`{name}`" for name in ([metavar(parameter)] if parameter.param_type_name == "argument" else parameter.opts))
    said = " ".join((parameter.help or "").split())
    written = re.search(r" ?\[default: ([^\]]*)\]", said)
    default = written.group(1) if written else plain_default(parameter)
    text = said.replace(written.group(0), "") if written else said
    shown = "required" if parameter.required else f"`{default}`" if default and " " not in default else default
    return [names, values_of_option(parameter), shown, cell(text)]


def plain_default(parameter: Any) -> str:
    """The default of an option where it is a value."""
    default = parameter.default
    return "" if default is None or isinstance(default, bool | list | tuple) or callable(default) else str(default)


def values_of_option(parameter: Any) -> str:
    """What an option takes."""
    if getattr(parameter, "is_flag", False):
        return "flag"
    descriptor = getattr(parameter, "type_descriptor", None)
    annotation = getattr(descriptor, "annotation", None)
    choices = get_args(annotation) if get_origin(annotation) is Literal else getattr(getattr(parameter, "type", None), "choices", ())
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    names = {str: "text", int: "integer", float: "number", Path: "path"}
    inner = get_args(annotation)
    if inner and annotation not in names:
        return f"{len(inner)} × {names.get(inner[0], 'text')}" if len(inner) > 1 else f"{names.get(inner[0], 'text')}, may be repeated"
    return names.get(annotation, "text")  # type: ignore[arg-type]


# -- Markdown --------------------------------------------------------------------------


def first_sentence(doc: str | None) -> str:
    """The first sentence of a docstring's first paragraph."""
    paragraph = " ".join((doc or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])(?<!et al\. )", paragraph, maxsplit=1)[0]


def cell(text: str) -> str:
    """Plain text as Markdown that a table holds; code marks stay."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else re.sub(r"([*<\[\]])", r"\\\1", part) for part in parts).replace("|", "\\|")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def join(parts: Sequence[str]) -> str:
    """Paragraphs to a page."""
    return "\n\n".join(part for part in parts if part) + "\n"


# -- files -----------------------------------------------------------------------------


def stale(folder: Path = OUT) -> list[str]:
    """Paths of pages that are missing, differ from the code, or belong to nothing any more."""
    wanted = pages()
    there = {str(file.relative_to(folder)) for file in folder.rglob("*.md")} - {"index.md"}
    return sorted(name for name in {*wanted, *there} if name not in wanted or read(folder / name) != wanted[name])


def read(file: Path) -> str | None:
    """The text of a file, None when there is none."""
    return file.read_text(encoding="utf-8") if file.is_file() else None


def write(folder: Path = OUT) -> list[str]:
    """Bring the pages up to date; -> those that changed."""
    wanted, changed = pages(), stale(folder)
    for name in changed:
        if name not in wanted:
            (folder / name).unlink()
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(wanted[name], encoding="utf-8")
    return changed


def main() -> int:
    """The command line of this script -> its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is stale")
    if parser.parse_args().check:
        if names := stale():
            print("stale, run python docs/reference.py: " + ", ".join(names), file=sys.stderr)
        return int(bool(names))
    print("\n".join(f"wrote docs/reference/{name}" for name in write()) or "all pages are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
