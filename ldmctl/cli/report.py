"""ldmctl report"""

from pathlib import Path
from typing import Annotated

import typer

from ldmctl.cli.options import Json, Quiet, print_json
from ldmctl.console import Console
from ldmctl.errors import ConfigError

FIRST = ("runs/ldm", "runs/ae", "cache")  # told of where nothing is named


def command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Run folders, caches, samples, or what eval-samples and data check wrote [default: runs/ldm, else runs/ae, else cache].",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file.")] = Path("report.html"),
    alone: Annotated[bool, typer.Option("--alone", help="Report only on these, not on their inputs and outputs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Renew it, in the browser too, while one of the runs is training.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One HTML file of a run and its chain, from data to scores, or of several runs side by side.

    It holds all that it shows, and opens without a network.
    """
    named = runs or [each for each in FIRST if (Path(each) / "run.json").exists()][:1]
    if not named:
        raise ConfigError(f"There is nothing to tell of here: neither {', '.join(FIRST[:-1])} nor {FIRST[-1]}. Name a run folder.")
    from ldmctl.stages.report import report

    found = report(named, out, console=Console(quiet=quiet), alone=alone, watch=watch)
    if json:
        print_json(found)
