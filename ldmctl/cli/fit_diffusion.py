"""ldmctl fit-diffusion"""

from typing import Annotated

import typer

from ldmctl.cli import options
from ldmctl.config.presets import compose, wished
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.latents import manifest
from ldmctl.latents.recipe import recipe


def command(
    overrides: options.Overrides = None,
    config: options.ConfigName = None,
    latents: Annotated[str | None, typer.Option("--latents", help="The cache that encode-dataset wrote [default: cache].")] = None,
    init: Annotated[str | None, typer.Option("--init", help="Weights to start from: a run (runs/ldm, runs/ldm@best).")] = None,
    embed_text: Annotated[
        bool, typer.Option("--embed-text", help="Copy the text encoder into the run, so that the folder alone makes pictures of words.")
    ] = False,
    out: Annotated[str, typer.Option("--out", "-o", help="The run folder.")] = "runs/ldm",
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
    """Fit a denoiser to cached latents. The same command again resumes."""
    folder = None if latents is None else latents.rstrip("/") or latents
    machine = {"machine__device": device, "machine__devices": devices, "machine__precision": precision}
    flags = options.given(latents=folder, init=init, conditions__embed_text=embed_text or None, **machine)
    cache = manifest.read(folder or str(wished(FitDiffusion, overrides, "latents", config=config) or "cache"))
    below = recipe(cache, out, overwrite=overwrite)
    settings, source = compose(
        FitDiffusion, config=config, overrides=overrides or [], flags=flags, below=below, out=out, overwrite=overwrite
    )
    manner = options.Manner(json, quiet, verbose, offline, dry_run, preview)

    def work(console: options.Console) -> dict:
        from ldmctl.stages.fit_diffusion import fit_diffusion

        return fit_diffusion(settings, out, console=console, overwrite=overwrite, accept_data=accept_data)

    def plan() -> dict:
        from ldmctl.plan import plan_fit_diffusion

        return plan_fit_diffusion(settings)

    options.perform(settings, source, manner, work, plan=plan, out=out)
