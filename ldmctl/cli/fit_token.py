"""ldmctl fit-token"""

from typing import Annotated

import typer

from ldmctl.cli import options
from ldmctl.config.network_origins import image_of
from ldmctl.config.presets import compose, wished
from ldmctl.config.schemas.fit_token import FitToken


def command(
    overrides: Annotated[list[str] | None, options.settings("steps=500")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="The run folder of fit-diffusion [default: runs/ldm]; runs/ldm@best names a snapshot.")
    ] = None,
    data: options.Data = None,
    word: Annotated[str | None, typer.Option("--word", help="The word to learn, or the name of the class [default: <mine>].")] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="word, for prompts, or class, for --label [default: word, where the model listens to captions]."),
    ] = None,
    init_word: Annotated[
        str | None,
        typer.Option(
            "--init-word",
            help="A word, or a class, that the model knows, with which the new one begins [default: a, or the mean of all classes].",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label", help="The class of the pictures of a word, for a model that was never trained on captions without a label."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps [default: 300].")] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="The file of the word or class.")] = "token.safetensors",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over: replace what an earlier command left in --out.")] = False,
    device: options.Device = None,
    precision: options.Precision = None,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Learn a new word, or a new class, from a few pictures, for `ldmctl sample --token FILE`; the model stays as it is.

    The same command again continues where it stopped.
    """
    flags = options.given(
        run=run,
        data=data,
        word=word,
        kind=kind,
        init_word=init_word,
        label=label,
        steps=steps,
        machine__device=device,
        machine__precision=precision,
    )
    below = image_of(run or str(wished(FitToken, overrides, "run") or "runs/ldm"))
    settings, source = compose(FitToken, overrides=overrides or [], flags=flags, below=below)
    manner = options.Manner(json, quiet, verbose, offline, dry_run)

    def work(console: options.Console) -> dict:
        from ldmctl.stages.fit_token import fit_token

        return fit_token(settings, out, console=console, overwrite=overwrite)

    def plan() -> dict:
        from ldmctl.stages.fit_token import plan_fit_token

        return plan_fit_token(settings)

    options.perform(settings, source, manner, work, plan=plan, out=out)
