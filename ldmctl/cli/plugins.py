"""ldmctl plugins: list, show, check and create plugins."""

import inspect
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ldmctl import registry
from ldmctl.cli.options import Json, print_json
from ldmctl.config.base import PluginConfig
from ldmctl.config.documents import parse_override
from ldmctl.errors import ConfigError, PluginError

app = typer.Typer(no_args_is_help=True, help="Look at plugins, check them, create a new one.")
Kind = Annotated[str, typer.Argument(help="autoencoder, discriminator, schedule, ...")]
Name = Annotated[str, typer.Argument(help="The name it is registered under.")]


@app.command("list")
def list_plugins(kind: Annotated[str | None, typer.Argument(help="Only this kind.")] = None, json: Json = False) -> None:
    """Every installed plugin and where it comes from. Imports none of them; a new entry point shows after installing again."""
    kinds = list(registry.GROUPS) if kind is None else [registry.kind_of(kind)]
    rows = [plugin for each in kinds for plugin in registry.plugins(each)]
    if json:
        print_json({"plugins": [{"kind": p.kind, "name": p.name, "target": p.target, "from": p.source} for p in rows]})
        return
    table = Table("kind", "name", "class", "from", box=None)
    for plugin in rows:
        table.add_row(plugin.kind, plugin.name, plugin.target, plugin.source)
    Console(highlight=False, soft_wrap=True).print(table)


@app.command()
def show(kind: Kind, name: Name) -> None:
    """A plugin's keys with their defaults, and where its code is."""
    plugin = registry.find(registry.kind_of(kind), name)
    loaded = plugin.load()
    print(f"{plugin.kind} {plugin.name}, from {plugin.source}: {inspect.getsourcefile(loaded)}")
    print(" ".join((inspect.getdoc(loaded) or "").split()))
    config: type[PluginConfig] = loaded.Config  # type: ignore[attr-defined]
    for key, field in config.model_fields.items():
        if key != "type":
            default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
            print(f"  {key:16} {default:28} {field.description or ''}")


@app.command()
def check(
    kind: Kind,
    name: Name,
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys of its Config.")] = None,
) -> None:
    """Try whether a plugin keeps its kind's promises, on tiny shapes."""
    from ldmctl.testing import check as keep_promises

    options = {key: value for word in settings or [] for key, value in parse_override(word).items()}
    kind = registry.kind_of(kind)
    loaded = registry.load(kind, name)
    try:
        keep_promises(kind, loaded, **options)
    except PluginError:
        raise
    except Exception as error:  # the plugin's own code may raise anything
        raise PluginError(f"{kind} {name!r} fails its check: {type(error).__name__}: {error}") from error
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
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name another --out.")
    kind = registry.kind_of(kind)
    files = write_package(folder, kind, name)
    print("\n".join(f"wrote {file}" for file in files))
    print(f"Next: pip install -e {folder} && ldmctl plugins check {kind} {name}")
