"""ldmctl fit-ae"""

from typing import Annotated

import typer

from ldmctl.cli import options
from ldmctl.config.presets import compose
from ldmctl.config.schemas.fit_ae import FitAE

Autoencoder = Annotated[
    str | None,
    typer.Option("--ae", help="The autoencoder: vae, vqvae, identity, ...", autocompletion=options.complete_plugin("autoencoder")),
]
Init = Annotated[
    str | None,
    typer.Option("--init", help="Weights to start from: a run (runs/ae, runs/ae@best) or a folder that diffusers saved."),
]


def command(
    overrides: options.Overrides = None,
    config: options.ConfigName = None,
    ae: Autoencoder = None,
    init: Init = None,
    data: options.Data = None,
    out: Annotated[str, typer.Option("--out", "-o", help="The run folder.")] = "runs/ae",
    overwrite: options.Overwrite = False,
    accept_data: options.AcceptData = False,
    device: options.Device = None,
    devices: options.Devices = None,
    precision: options.Precision = None,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    preview: options.Preview = False,
) -> None:
    """Fit an autoencoder to a folder of pictures. The same command again resumes."""
    flags = options.given(
        autoencoder=ae, init=init, data=data, machine__device=device, machine__devices=devices, machine__precision=precision
    )
    settings, source = compose(FitAE, config=config, overrides=overrides or [], flags=flags, out=out, overwrite=overwrite)
    manner = options.Manner(json, quiet, verbose, offline, dry_run, preview)

    def work(console: options.Console) -> dict:
        from ldmctl.stages.fit_ae import fit_ae

        return fit_ae(settings, out, console=console, overwrite=overwrite, accept_data=accept_data)

    def plan() -> dict:
        from ldmctl.plan import plan_fit_ae

        return plan_fit_ae(settings)

    options.perform(settings, source, manner, work, plan=plan, out=out)
