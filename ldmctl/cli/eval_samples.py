"""ldmctl eval-samples"""

import sys
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.table import Table

from ldmctl.cli import options
from ldmctl.config.compared import compose_judgement
from ldmctl.console import cell

WORDS = 20  # shown
WIDTH = 120  # columns of a table that nobody looks at in a terminal


def command(
    overrides: Annotated[list[str] | None, options.settings("steps=20")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="The run folder of fit-diffusion [default: runs/ldm]; runs/ldm@best names a snapshot.")
    ] = None,
    samples: Annotated[
        str | None, typer.Option("--samples", help="Judge the pictures in this folder, from any source, instead of samples of the run.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="A cache, a folder of pictures or a name in configs/data [default: what the run learned from]."),
    ] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="How many samples [default: 5000].")] = None,
    extractor: Annotated[
        str | None,
        typer.Option(
            "--extractor",
            help="Feature extractor: fitted, latent, torchvision, inception, ... [default: fitted if there are labels, else latent]",
            autocompletion=options.complete_plugin("extractor"),
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the sampler per picture [default: 20].")] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="unipc, ddim, ... [default: unipc]", autocompletion=options.complete_plugin("sampler"))
    ] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", min=0, help="Classifier-free guidance; 1 is none [default: 1].")] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="Judge every snapshot of the run and lengths of its EMA, and name the best.")
    ] = False,
    out: Annotated[str, typer.Option("--out", "-o", help="The folder for samples, sheets and judgement.json.")] = "judgement",
    device: options.Device = None,
    precision: options.Precision = None,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """How good samples are, how varied, whether they are what was asked for, and whether they are copies of training pictures.

    Each number comes with a 95 % interval, and beside the same number of real pictures against real pictures.
    """
    keys = {
        "run": run,
        "samples": samples,
        "against": against,
        "count": count,
        "extractor": extractor,
        "steps": steps,
        "curve": curve or None,
    }
    flags = options.given(**keys, sampler=sampler, guidance=guidance, machine__device=device, machine__precision=precision)
    settings, source = compose_judgement(overrides, flags)
    manner = options.Manner(json, quiet, verbose, offline, dry_run)

    def work(console: options.Console) -> dict:
        from ldmctl.stages.eval_samples import eval_samples

        result = eval_samples(settings, out, console=console)
        if not json:
            show(result)
        return result

    def plan() -> dict:
        from ldmctl.stages.eval_samples import plan_eval_samples

        return plan_eval_samples(settings, out)

    options.perform(settings, source, manner, work, plan=plan, out=out)


def show(result: dict) -> None:
    """The numbers as a table on stdout, then the verdict."""
    if "curve" in result:
        Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH).print(of_curve(result))
        return
    table = Table("measure", "value", "95 % interval", "real against real", box=None, title_justify="left")
    table.title = cell(f"{judged(result)}, against {result['references']:,} real pictures")
    for value in result["measures"].values():
        table.add_row(cell(value["title"]), f"{value['value']:.4g}", interval(value), f"{value['real']['value']:.4g}{at(value)}")
    if asked := result["asked"]:
        table.add_row(cell(f"seen as asked ({asked['judge']})"), f"{asked['value']:.1%}", interval(asked), f"{asked['real']['value']:.1%}")
    words = result.get("words")
    if words and words["value"] is not None:
        table.add_row("words seen as asked", f"{words['value']:.1%}", interval(words), f"{words['real']['value']:.1%}")
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    if result["classes"]:
        console.print(by_class(result["classes"]))
    if words and words["words"]:
        console.print(by_word(words["words"]))
    for sentence in result["verdict"]:
        console.print(cell(sentence))


def judged(result: dict) -> str:
    """How many samples of what: `500 of 5,000 pictures of samples, evenly`."""
    count, there, lost = result["count"], result["there"], len(result["unreadable"])
    if there is None:
        return f"{count:,} {result['of']}"
    some = f"{count:,} of {there:,}" if count < there else f"{count:,}"
    return f"{some} pictures of {result['of']}{', evenly' if count + lost < there else ''}{f', without {lost:,} that cannot be read' if lost else ''}"


def of_curve(result: dict) -> Group:
    """A row for each snapshot, and the verdict."""
    table = Table("run", "step", "Frechet distance", "95 % interval", "precision", "recall", box=None)
    for row in result["curve"]:
        distance = row["frechet_distance"]
        shares = [f"{row[name]['value']:.3f}" for name in ("precision", "recall")]
        table.add_row(cell(row["run"]), f"{row['step']:,}", f"{distance['value']:.4g}", interval(distance), *shares)
    return Group(table, *map(cell, result["verdict"]))


def by_class(classes: dict) -> Table:
    """A row for each class."""
    table = Table("class", "samples", "seen as asked", "Frechet distance", "of real ones", "coverage", box=None)
    for name, row in classes.items():
        own = row.get("measures") or {}
        distance, covered = own.get("frechet_distance"), own.get("coverage")
        table.add_row(
            cell(name),
            f"{row['count']:,}" if row.get("compared", row["count"]) == row["count"] else f"{row['compared']:,} of {row['count']:,}",
            f"{row['asked']['value']:.1%}" if row["asked"] else "",
            f"{distance['value']:.4g}" if distance else "too few",
            f"{distance['real']['value']:.4g}" if distance else "",
            f"{covered['value']:.3f}" if covered else "",
        )
    return table


def by_word(words: dict) -> Table:
    """A row for each word that samples were asked for and the judge can tell, those furthest behind real pictures first."""
    table = Table("word", "samples", "seen as asked", "in real ones", "seen unasked", "in real ones", box=None)
    told = {word: row for word, row in words.items() if row["told"]}
    ordered = sorted(told, key=lambda word: told[word]["seen"] - told[word]["real"]["seen"])
    for word in ordered[:WORDS]:
        row = told[word]
        shares = (each[name] for name in ("seen", "unasked") for each in (row, row["real"]))
        table.add_row(cell(word), f"{row['count']:,}", *("" if share is None else f"{share:.1%}" for share in shares))
    if len(told) > WORDS:
        table.add_row(f"and {len(told) - WORDS:,} more, in judgement.json")
    return table


def at(value: dict) -> str:
    """What as few samples have, where fewer real pictures stand beside them; otherwise nothing."""
    return f" of {same['count']:,}, as many samples {same['value']:.4g}" if (same := value.get("same")) else ""


def interval(value: dict) -> str:
    """`0.91 to 0.94`."""
    return "none of so few" if value["low"] is None else f"{value['low']:.4g} to {value['high']:.4g}"
