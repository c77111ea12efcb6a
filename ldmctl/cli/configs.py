"""ldmctl configs: look at presets and at every key."""

import json as json_module
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from ldmctl.cli.options import Json, print_json
from ldmctl.config import presets
from ldmctl.console import Console
from ldmctl.errors import ConfigError, did_you_mean

app = typer.Typer(no_args_is_help=True, help="Look at presets and at every key.")
FOLDERS = ("data", "fit-ae", "fit-diffusion")
MODELINE = "# yaml-language-server: $schema="  # editors look for it among the comments at the top


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
        print(for_a_copy(presets.text(place, stem)))


@app.command()
def schema(
    subject: Annotated[str, typer.Argument(metavar="VERB", help="Such as fit-ae; or data, for presets of data.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file to write it to [default: stdout].")] = None,
    built_in: Annotated[bool, typer.Option("--built-in", help="Leave out plugins of other packages, as in configs/schema.")] = False,
) -> None:
    """The JSON Schema of a verb's config files with the keys of all installed plugins, for editors."""
    from ldmctl.config.json_schema import SUBJECTS, config_schema

    if subject not in SUBJECTS:
        known = ", ".join(SUBJECTS)
        raise ConfigError(f"There is no schema called {subject!r}.{did_you_mean(subject, SUBJECTS)} Schemas: {known}.")
    document, problems = config_schema(subject, built_in=built_in)
    for problem in problems:
        Console().warn(f"Left out of the schema: {problem}")
    text = json_module.dumps(document, indent=1, ensure_ascii=False)
    if out is None:
        print(text)
        return
    if out.exists() and not is_schema(out):
        raise ConfigError(f"{out} is there already and is no schema. Name another --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}. Name another --out.") from None
    print(f"wrote {out}\nNext: put this line at the top of a config, so that editors know its keys:\n{MODELINE}{out.absolute().as_uri()}")


def is_schema(file: Path) -> bool:
    """Whether this is a file that may be written anew: a JSON Schema, or nothing at all."""
    try:
        text = file.read_text(encoding="utf-8")
        return not text.strip() or "properties" in json_module.loads(text)
    except (OSError, ValueError, TypeError):
        return False


def for_a_copy(document: str) -> str:
    """A preset's document whose line for editors names the schema by its full path, so that a copy may lie anywhere."""
    there = Path(str(files("ldmctl_configs") / "schema")).absolute().as_uri()
    return document.replace(f"{MODELINE}../schema/", f"{MODELINE}{there}/")


def first_line(folder: str, name: str) -> str:
    """What a preset's first comment says."""
    return presets.text(folder, name).splitlines()[0].lstrip("# ")
