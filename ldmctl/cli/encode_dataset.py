"""ldmctl encode-dataset"""

from typing import Annotated

import typer

from ldmctl.cli import options
from ldmctl.config.presets import compose, pictures_of, wished
from ldmctl.config.schemas.encode_dataset import EncodeDataset


def command(
    overrides: Annotated[list[str] | None, options.settings("batch=32")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="The run folder of fit-ae [default: runs/ae]; runs/ae@best names a snapshot.")
    ] = None,
    data: options.Data = None,
    out: Annotated[str, typer.Option("--out", "-o", help="The cache.")] = "cache",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every file of the finished cache --out with its hash, and stop.")
    ] = False,
    overwrite: options.Overwrite = False,
    device: options.Device = None,
    devices: Annotated[int | None, typer.Option("--devices", min=1, help="Devices of this machine to encode on, one process each.")] = None,
    precision: options.Precision = None,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Encode every picture once into a cache of latents. Data defaults to that of the run.

    The same command again continues where it stopped, and takes up pictures that were added, changed or removed since.
    """
    if verify:
        check(out, options.Manner(json, quiet, verbose))
        return
    flags = options.given(run=run, data=data, machine__device=device, machine__devices=devices, machine__precision=precision)
    below = pictures_of(run or str(wished(EncodeDataset, overrides, "run") or "runs/ae"))
    settings, source = compose(EncodeDataset, overrides=overrides or [], flags=flags, below=below, out=out, overwrite=overwrite)
    manner = options.Manner(json, quiet, verbose, offline, dry_run)

    def work(console: options.Console) -> dict:
        from ldmctl.stages.encode_dataset import encode_dataset

        return encode_dataset(settings, out, console=console, overwrite=overwrite)

    def plan() -> dict:
        from ldmctl.plan import plan_encode_dataset

        return plan_encode_dataset(settings)

    options.perform(settings, source, manner, work, plan=plan, out=out)


def check(out: str, manner: options.Manner) -> None:
    """Read a finished cache as a whole; what is wrong with it is an error."""
    from ldmctl.stages.verify_cache import verify_cache

    found = verify_cache(out, console=options.Console(quiet=manner.quiet, verbose=manner.verbose))
    if manner.json:
        options.print_json(found)
