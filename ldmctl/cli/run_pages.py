"""What `ldmctl runs` prints: a list, a page of one run, and runs side by side."""

from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from ldmctl.cli.output import result
from ldmctl.config.documents import write_json
from ldmctl.console import cell, duration, escaped, sparkline

WIDTH = 160  # columns of a table that nobody looks at in a terminal
CURVES = ("loss", "val/loss")
SHOWN = 76  # characters of a config's value


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
            cell(row["run"]),
            cell(row["verb"] or "?"),
            cell(row["state"], COLOURS.get(row["state"], "")),
            steps(row),
            cell("not finite", "red") if CURVES[1] in row["not_finite"] else number(row["val"]),
            f"{number(best['value'])} at {best['step']:,}" if best else "",
            "" if row["images_per_second"] is None else f"{row['images_per_second']:,.0f}",
            "" if row["seconds"] is None else duration(row["seconds"]),
            size(row["bytes"]),
            cell(row["parent"] or ""),
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
        "plugins": ", ".join(map(str, found["plugins"])) if isinstance(found["plugins"], list) else None,
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }.items():
        if value:
            facts.add_row(name, cell(str(value)))
    curves = Table(box=None, show_header=False)
    for name, value in found["metrics"].items():
        curves.add_row(cell(name), number(value), sparkline(look.values(name)[1]))
    for name, step in found["not_finite"].items():
        curves.add_row(cell(name), f"not finite since step {step:,}", sparkline(look.values(name)[1]))
    keys = Table("not at its default", "value", "default", box=None)
    for row in found["changed"]:
        keys.add_row(cell(row["key"]), value_of(row["value"]), value_of(row["default"]))
    parts = [facts, *([curves] if curves.rows else []), *([keys] if found["changed"] else [])]
    return Group(*parts, *map(cell, [*found["verdict"], *found["troubles"]]))


def contrasted(looks: list[Any], found: dict[str, Any]) -> Group:
    """What `compare` says: keys, numbers with a star at the better one, curves."""
    names = [escape(escaped(each)) for each in found["runs"]]
    keys, numbers, curves = (Table(title, *names, box=None) for title in ("key", "last number", "curve"))
    for row in found["config"]:
        keys.add_row(cell(row["key"]), *map(value_of, row["values"]))
    if found["metrics"]:
        numbers.add_row("step", *("" if step is None else f"{step:,}" for step in found["steps"]))
    for row in found["metrics"]:
        shown = [f"{number(value)}{' *' if place == row['better'] else ''}" for place, value in enumerate(row["values"])]
        numbers.add_row(cell(row["name"]), *shown)
    for name in CURVES:
        if any(lines := [sparkline(each.values(name)[1]) for each in looks]):
            curves.add_row(name, *lines)
    sentences = [*found["cautions"], *(each for look in looks for each in look.troubles)]
    if any(row["better"] is not None for row in found["metrics"]):
        sentences.append("* is better: lower losses and distances, higher PSNR, SSIM and speed. Each curve has a scale of its own.")
    same = "Their configs are the same." if len({each.verb for each in looks}) == 1 else "The keys that all of them have are the same."
    parts = [keys if found["config"] else cell(same), *(table for table in (numbers, curves) if table.rows)]
    return Group(*parts, *map(cell, sentences))


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
    return cell(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...")
