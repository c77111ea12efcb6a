"""ldmctl spacing"""

from typing import Annotated

import typer

from ldmctl.cli import options
from ldmctl.config.levels import table_of
from ldmctl.config.presets import compose
from ldmctl.config.schemas.spacing import FindSpacing
from ldmctl.storage.apart import elsewhere


def command(
    overrides: Annotated[list[str] | None, options.settings("count=64")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="The run folder of fit-diffusion [default: runs/ldm]; runs/ldm@best names a snapshot.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Levels of the table [default: 10].")] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The file [default: RUN/spacing.json, of a snapshot RUN/spacing-STEP.json].")
    ] = None,
    device: options.Device = None,
    precision: options.Precision = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Find the noise levels at which a sampler of your own model errs least, for `ldmctl sample spacing=FILE`.

    Needs the run and its cache of latents, and trains nothing.
    """
    flags = options.given(run=run, steps=steps, machine__device=device, machine__precision=precision)
    settings, source = compose(FindSpacing, overrides=overrides or [], flags=flags)
    manner = options.Manner(json, quiet, verbose, False, dry_run)

    def work(console: options.Console) -> dict:
        from ldmctl.stages.spacing import spacing

        return spacing(settings, console=console, out=out)

    def plan() -> dict:
        from ldmctl.stages.spacing import plan_spacing

        return plan_spacing(settings)

    options.perform(settings, source, manner, work, plan=plan, out=elsewhere(out, table_of(settings.run)))
