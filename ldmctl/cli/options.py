"""Options that several verbs share, and what happens around the stage that a verb calls."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ldmctl.cli import ranks
from ldmctl.cli.output import hand_over, put
from ldmctl.config import presets
from ldmctl.config.base import Config
from ldmctl.config.documents import write_json, write_yaml
from ldmctl.config.sharing import per_device
from ldmctl.console import Console
from ldmctl.errors import LdmctlError
from ldmctl.storage import history
from ldmctl.storage.apart import refuse_inputs


def complete_data(incomplete: str) -> list[str]:
    """Data presets that begin so."""
    return [name for name in presets.names("data") if name.startswith(incomplete)]


def complete_plugin(kind: str) -> Callable[[str], list[str]]:
    """A completer over the plugins of a kind."""

    def complete(incomplete: str) -> list[str]:
        from ldmctl import registry

        return [word for plugin in registry.plugins(kind) if (word := registry.word_for(plugin)).startswith(incomplete)]

    return complete


def settings(example: str) -> Any:
    """The KEY=VALUE words of a verb, explained by a key that it has."""
    return typer.Argument(metavar="[KEY=VALUE]...", help=f"Any key of the config, such as {example}.")


Overrides = Annotated[list[str] | None, settings("loop.steps=500")]
ConfigName = Annotated[str | None, typer.Option("--config", "-c", help="A preset's name (`ldmctl configs list`) or a YAML file.")]
Data = Annotated[str | None, typer.Option("--data", help="A name in configs/data, or a folder of pictures.", autocompletion=complete_data)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start over: delete what an earlier run left in --out.")]
AcceptData = Annotated[bool, typer.Option("--accept-data", help="Continue though the data has changed since the run began.")]
Device = Annotated[Literal["auto", "cuda", "mps", "cpu"] | None, typer.Option("--device", help="Where to compute.")]
Precision = Annotated[
    Literal["auto", "bf16", "fp32", "fp16"] | None, typer.Option("--precision", help="Floating-point precision of the networks.")
]
Devices = Annotated[int | None, typer.Option("--devices", min=1, help="Devices of this machine to train on, one process each.")]
Offline = Annotated[bool, typer.Option("--offline", help="Download nothing (also LDMCTL_OFFLINE=1).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and what it would cost, and stop.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")]
Preview = Annotated[bool, typer.Option("--preview", help="Draw each preview in the terminal, where it can draw.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]


@dataclass(frozen=True)
class Manner:
    """How a verb behaves, whatever it does."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    offline: bool = False
    dry_run: bool = False
    preview: bool = False


def perform(
    config: Config,
    source: str,
    manner: Manner,
    work: Callable[[Console], dict[str, Any]],
    *,
    plan: Callable[[], dict[str, Any]] | None = None,
    out: str | Path | None = None,
) -> None:
    """Do the work of a verb, or with --dry-run say what it would be; print the result as one JSON object if asked.

    First of all, a ConfigError where it would write to `out` what it reads there.
    """
    refuse_inputs(config, out)
    if manner.offline:
        os.environ["LDMCTL_OFFLINE"] = "1"
    console = Console(quiet=manner.quiet, verbose=manner.verbose)
    if manner.dry_run:
        if not ranks.alone("--dry-run"):
            return
        show_plan(config, source, plan() if plan else {}, manner)
        return
    if (count := getattr(getattr(config, "machine", None), "devices", 1)) > 1 and "WORLD_SIZE" not in os.environ:
        if (loop := getattr(config, "loop", None)) is not None:
            per_device(loop.batch, count)  # a batch that cannot be shared is refused here, before the processes
        since, code = history.now(), 0
        try:
            ranks.spread(count)
        except LdmctlError as ended:
            code = ended.exit_code
            raise
        finally:
            if out is not None:
                history.settle(Path(out).expanduser(), code, since=since)
        return
    if source:
        console.say(f"{config.verb}: {source}")  # type: ignore[attr-defined]
    for path, value in sorted(vars(config).items()):
        console.detail(f"  {path}: {value}")
    if manner.preview:
        from ldmctl.pictures import terminal

        console.draw = (lambda file: terminal.show(file, console)) if terminal.draws(console) else None
    done = work(console)
    if manner.json and os.environ.get("RANK", "0") == "0":
        print_json(done)


def show_plan(config: Config, source: str, plan: dict[str, Any], manner: Manner) -> None:
    """The resolved config and its costs, as a YAML document or one JSON object."""
    resolved = config.model_dump(mode="json")
    if manner.json:
        print_json({"dry_run": True, "source": source or None, "config": resolved, "plan": plan})
        return
    lines = [*([f"# {source}"] if source else []), *(f"# {name}: {value}" for name, value in plan.items())]
    for line in lines:
        put(line)
    hand_over(write_yaml(resolved))


def print_json(found: dict[str, Any]) -> None:
    """One object, one line, on stdout."""
    hand_over(write_json(found) + "\n")


def given(**flags: Any) -> dict[str, Any]:
    """A config layer of the flags that were given; dots in names are written as double underscores."""
    layer: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None:
            continue
        *parents, last = name.split("__")
        place = layer
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return layer
