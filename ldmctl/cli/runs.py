"""ldmctl runs: what has been trained, how far it is, and which of two runs is better."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ldmctl.cli import run_pages
from ldmctl.cli.options import Json, print_json
from ldmctl.cli.output import put

app = typer.Typer(no_args_is_help=True, help="Look at run folders: what there is, how far it is, and how runs differ.")


class By(StrEnum):
    """What a list is sorted by."""

    started = "started"
    name = "name"
    state = "state"
    step = "step"
    best = "best"
    time = "time"
    disk = "disk"


KEYS: dict[By, Any] = {  # what is sorted by, and whether the largest comes first; runs without it come last
    By.started: (lambda row: row["started"], True),
    By.name: (lambda row: row["run"], False),
    By.state: (lambda row: row["state"], False),
    By.step: (lambda row: row["step"], True),
    By.best: (lambda row: row["best"] and row["best"]["value"], False),
    By.time: (lambda row: row["seconds"], True),
    By.disk: (lambda row: row["bytes"], True),
}

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a cache.")]


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that holds run folders.")] = Path("runs"),
    sort: Annotated[
        By, typer.Option("--sort", help="What comes first: the newest, the name, ... the lowest best validation loss.")
    ] = By.started,
    json: Json = False,
) -> None:
    """Every run below a folder: what it is, its state, step, validation loss and best, speed, time, disk and parent."""
    from ldmctl.storage import below, runs

    places, foreign = below.find(folder)
    rows = ordered([runs.look(place).summary() for place in places], sort)
    if json:
        print_json({"folder": str(folder), "runs": rows, "foreign": foreign})
        return
    run_pages.show(run_pages.listed(rows) if rows else run_pages.cell(f"No run lies below {folder}."))
    for sentence in [*(each for row in rows for each in row["troubles"]), *foreign]:
        put(sentence)


@app.command("show")
def show_(run: Run, json: Json = False) -> None:
    """One run on a page: how it was made, how far it is, its numbers and curves, and what is not at its default."""
    from ldmctl.storage import runs

    look = runs.look(run)
    found = described(look)
    if json:
        print_json(found)
        return
    run_pages.show(run_pages.page(look, found))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Two run folders or more.")],
    json: Json = False,
) -> None:
    """How runs differ: the keys of their configs, and their last numbers with which is better where that can be said."""
    from ldmctl.errors import ConfigError
    from ldmctl.evaluation.contrast import contrast
    from ldmctl.storage.runs import look

    if len(runs) < 2:
        raise ConfigError(f"One run alone ({runs[0]}) has nothing to be compared with: name two or more. `ldmctl runs show` shows one.")
    looks = [look(each) for each in runs]
    found = contrast(looks)
    if json:
        print_json({**found, "troubles": [each for one in looks for each in one.troubles]})
        return
    run_pages.show(run_pages.contrasted(looks, found))


def ordered(rows: list[dict[str, Any]], sort: By) -> list[dict[str, Any]]:
    """Rows by a key; by name where it is the same."""
    key, largest = KEYS[sort]
    named = sorted(rows, key=lambda row: row["run"])
    known = sorted((row for row in named if key(row) is not None), key=key, reverse=largest)
    return [*known, *(row for row in named if key(row) is None)]


def described(look: Any) -> dict[str, Any]:
    """What `show` says, as one object."""
    from ldmctl.config.schemas.verbs import VERBS
    from ldmctl.config.usual import ABSENT, beside_defaults

    schema = VERBS.get(look.verb or "")
    record = look.record
    keys = beside_defaults(schema, look.config, record.get("defaults")) if schema else []
    judged = record.get("judged")
    verdict = judged.get("verdict") if isinstance(judged, dict) else None
    return {
        **look.summary(),
        **{name: record.get(name) for name in ("command", "versions", "plugins", "published", "history", "ended", "exit_code")},
        "metrics": look.last(),
        "changed": [{"key": key, "value": value, "default": default} for key, value, default in keys if default not in (value, ABSENT)],
        "verdict": list(map(str, verdict)) if isinstance(verdict, list) else [],
        "snapshots": sorted(each.stem for each in (look.folder / "snapshots").glob("*.safetensors")),
    }
