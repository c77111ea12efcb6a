"""ldmctl runs: what has been trained, how far it is, and which of two runs is better."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from ldmctl.cli.options import Json, print_json
from ldmctl.cli.output import result
from ldmctl.config.documents import write_json
from ldmctl.console import duration, sparkline

app = typer.Typer(no_args_is_help=True, help="Look at run folders: what there is, how far it is, and how runs differ.")
WIDTH = 160  # columns of a table that nobody looks at in a terminal
CURVES = ("loss", "val/loss")
SHOWN = 76  # characters of a config's value


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
    from ldmctl.storage import runs

    places, foreign = runs.find(folder)
    rows = ordered([runs.look(place).summary() for place in places], sort)
    if json:
        print_json({"folder": str(folder), "runs": rows, "foreign": foreign})
        return
    show(listed(rows) if rows else Text(f"No run lies below {folder}."))
    for sentence in [*(each for row in rows for each in row["troubles"]), *foreign]:
        print(sentence, file=result())


@app.command("show")
def show_(run: Run, json: Json = False) -> None:
    """One run on a page: how it was made, how far it is, its numbers and curves, and what is not at its default."""
    from ldmctl.storage import runs

    look = runs.look(run)
    found = described(look)
    if json:
        print_json(found)
        return
    show(page(look, found))


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
    show(contrasted(looks, found))


def ordered(rows: list[dict[str, Any]], sort: By) -> list[dict[str, Any]]:
    """Rows by a key; by name where it is the same."""
    key, largest = KEYS[sort]
    named = sorted(rows, key=lambda row: row["run"])
    known = sorted((row for row in named if key(row) is not None), key=key, reverse=largest)
    return [*known, *(row for row in named if key(row) is None)]


# -- pages -------------------------------------------------------------------------


def show(page: Any) -> None:
    """Print it on stdout, as wide as its terminal or, where nobody looks, as wide as it needs."""
    out = result()
    Console(file=out, highlight=False, soft_wrap=True, width=None if out.isatty() else WIDTH).print(page)


def listed(rows: list[dict[str, Any]]) -> Table:
    """A row for each run."""
    table = Table(
        Column("run", overflow="fold"), "verb", "state", "step", "val/loss", "best", "images/s", "time", "disk", "parent", box=None
    )
    for row in rows:
        best = row["best"]
        table.add_row(
            Text(row["run"]),
            Text(row["verb"] or "?"),
            Text(row["state"], COLOURS.get(row["state"], "")),
            steps(row),
            number(row["val"]),
            f"{number(best['value'])} at {best['step']:,}" if best else "",
            "" if row["images_per_second"] is None else f"{row['images_per_second']:,.0f}",
            "" if row["seconds"] is None else duration(row["seconds"]),
            size(row["bytes"]),
            Text(row["parent"] or ""),
        )
    return table


COLOURS = {
    "running": "cyan",
    "finished": "green",
    "stopped": "yellow",
    "diverged": "red",
    "killed": "red",
    "failed": "red",
    "damaged": "red",
}


def described(look: Any) -> dict[str, Any]:
    """What `show` says, as one object."""
    from ldmctl.config.schemas.verbs import VERBS
    from ldmctl.config.usual import ABSENT, beside_defaults

    schema = VERBS.get(look.verb or "")
    record = look.record
    keys = beside_defaults(schema, look.config, record.get("defaults")) if schema else []
    judged = record.get("judged")
    return {
        **look.summary(),
        **{name: record.get(name) for name in ("command", "versions", "plugins", "published", "history", "ended", "exit_code")},
        "metrics": look.last(),
        "changed": [{"key": key, "value": value, "default": default} for key, value, default in keys if default not in (value, ABSENT)],
        "verdict": judged.get("verdict", []) if isinstance(judged, dict) else [],
        "snapshots": sorted(each.stem for each in (look.folder / "snapshots").glob("*.safetensors")),
    }


def page(look: Any, found: dict[str, Any]) -> Group:
    """One run."""
    facts = Table(box=None, show_header=False)
    versions = found["versions"] if isinstance(found["versions"], dict) else {}
    for name, value in {
        "run": f"{found['run']}, of {found['verb'] or 'an unknown verb'}",
        "state": found["state"],
        "step": steps(found),
        "command": found["command"],
        "parent": found["parent"],
        "time": found["seconds"] and duration(found["seconds"]),
        "disk": size(found["bytes"]),
        "snapshots": ", ".join(found["snapshots"]),
        "plugins": ", ".join(map(str, found["plugins"] or [])),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }.items():
        if value:
            facts.add_row(name, Text(str(value)))
    curves = Table(box=None, show_header=False)
    for name, value in found["metrics"].items():
        curves.add_row(Text(name), number(value), sparkline(look.values(name)[1]))
    keys = Table("not at its default", "value", "default", box=None)
    for row in found["changed"]:
        keys.add_row(Text(row["key"]), value_of(row["value"]), value_of(row["default"]))
    parts = [facts, *([curves] if found["metrics"] else []), *([keys] if found["changed"] else [])]
    return Group(*parts, *map(Text, [*found["verdict"], *found["troubles"]]))


def contrasted(looks: list[Any], found: dict[str, Any]) -> Group:
    """What `compare` says: keys, numbers with a star at the better one, curves."""
    names = [escape(each) for each in found["runs"]]
    keys, numbers, curves = (Table(title, *names, box=None) for title in ("key", "last number", "curve"))
    for row in found["config"]:
        keys.add_row(Text(row["key"]), *map(value_of, row["values"]))
    for row in found["metrics"]:
        shown = [f"{number(value)}{' *' if place == row['better'] else ''}" for place, value in enumerate(row["values"])]
        numbers.add_row(Text(row["name"]), *shown)
    for name in CURVES:
        if any(lines := [sparkline(each.values(name)[1]) for each in looks]):
            curves.add_row(name, *lines)
    sentences = [*found["cautions"], *(each for look in looks for each in look.troubles)]
    if any(row["better"] is not None for row in found["metrics"]):
        sentences.append("* is better: lower losses and distances, higher PSNR, SSIM and speed. Each curve has a scale of its own.")
    parts = [keys if found["config"] else Text("Their configs are the same."), *(table for table in (numbers, curves) if table.rows)]
    return Group(*parts, *map(Text, sentences))


def steps(row: dict[str, Any]) -> str:
    """`1,000 of 2,000`, or `2` shards of a cache."""
    if row["step"] is None:
        return "none"
    return f"{row['step']:,}" + (f" of {row['steps']:,}" if row["steps"] else " shards" if row["verb"] == "encode-dataset" else "")


def number(value: float | None) -> str:
    """Four digits; nothing where there is none."""
    return "" if value is None else f"{value:.4g}"


def size(count: int) -> str:
    """`12.3 MiB`."""
    return f"{count / 2**20:,.1f} MiB"


def value_of(value: Any) -> Text:
    """A config's value in a table."""
    text = value if isinstance(value, str) else write_json(value)
    return Text(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...")
