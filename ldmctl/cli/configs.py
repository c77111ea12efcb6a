"""ldmctl configs: look at presets and at every key."""

import json as json_module
from typing import Annotated

import typer

from ldmctl.cli.options import Json, print_json
from ldmctl.config import presets
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.errors import ConfigError, did_you_mean

app = typer.Typer(no_args_is_help=True, help="Look at presets and at every key.")
FOLDERS = ("data", "fit-ae", "fit-diffusion")


@app.command("list")
def list_presets(json: Json = False) -> None:
    """Every preset by folder, with its first line."""
    found = {folder: {name: first_line(folder, name) for name in presets.names(folder)} for folder in FOLDERS}
    if json:
        print_json(found)
        return
    for folder, rows in found.items():
        print(folder)
        for name, line in rows.items():
            print(f"  {name:24} {line}")


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="[FOLDER/]NAME", help="Such as mnist or fit-ae/mnist.")]) -> None:
    """A preset's document, comments and all."""
    folder, _, stem = name.rpartition("/")
    places = [each for each in FOLDERS if (not folder or each == folder) and stem in presets.names(each)]
    if not places:
        known = [f"{each}/{preset}" for each in FOLDERS for preset in presets.names(each)]
        raise ConfigError(
            f"No preset is called {name!r}.{did_you_mean(name, [*known, *(each.split('/')[1] for each in known)])} See `ldmctl configs list`."
        )
    for place in places:
        print(f"# configs/{place}/{stem}.yaml")
        print(presets.text(place, stem))


@app.command()
def schema(verb: Annotated[str, typer.Argument(help="Such as fit-ae.")]) -> None:
    """The JSON schema of a verb's config, for editors."""
    if verb not in VERBS:
        raise ConfigError(f"No verb is called {verb!r}.{did_you_mean(verb, VERBS)} Verbs: {', '.join(VERBS)}.")
    print(json_module.dumps(VERBS[verb].model_json_schema(), indent=2))


def first_line(folder: str, name: str) -> str:
    """What a preset's first comment says."""
    return presets.text(folder, name).splitlines()[0].lstrip("# ")
