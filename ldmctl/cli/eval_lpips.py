"""ldmctl eval-lpips"""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ldmctl.cli import options
from ldmctl.config.presets import compose, pictures_of, wished
from ldmctl.config.schemas.eval_lpips import EvalLpips
from ldmctl.console import cell

MEANING = {"psnr": "dB, higher is closer", "ssim": "1 is equal", "lpips": "0 is equal, lower is closer"}


def command(
    overrides: Annotated[list[str] | None, options.settings("count=100")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="The run folder of fit-ae [default: runs/ae]; runs/ae@best names a snapshot.")
    ] = None,
    data: options.Data = None,
    pairs: Annotated[
        tuple[str, str] | None, typer.Option("--pairs", help="Two folders of pictures with equal names, instead of a run.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder for verdict.png and latents.png [default: none are written].")] = None,
    device: options.Device = None,
    precision: options.Precision = None,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """How good an autoencoder is on held-out pictures, and whether that is enough for diffusion; or how far two folders are apart.

    PSNR, SSIM and LPIPS come with 95 % intervals, beside those of the same pictures downsampled to the latent's size.
    """
    flags = options.given(run=run, data=data, pairs=list(pairs) if pairs else None, machine__device=device, machine__precision=precision)
    paired = pairs or wished(EvalLpips, overrides, "pairs")
    below = {} if paired else pictures_of(run or str(wished(EvalLpips, overrides, "run") or "runs/ae"))
    settings, source = compose(EvalLpips, overrides=overrides or [], flags=flags, below=below)
    manner = options.Manner(json, quiet, verbose, offline, dry_run)

    def work(console: options.Console) -> dict:
        from ldmctl.stages.eval_lpips import eval_lpips

        result = eval_lpips(settings, console=console, out=out)
        if not json:
            show(result)
        return result

    def plan() -> dict:
        from ldmctl.stages.eval_lpips import plan_eval_lpips

        return plan_eval_lpips(settings)

    options.perform(settings, source, manner, work, plan=plan, out=out)


def show(result: dict) -> None:
    """The numbers as a table on stdout, then the verdict."""
    baseline = result.get("baseline") or {}
    columns = ["measure", "mean", "95 % interval", *(["downsampled"] if baseline else []), ""]
    table = Table(*columns, box=None, title=cell(f"{result['count']:,} pictures: {result['of']}"), title_justify="left")
    for name, value in result.items():
        if isinstance(value, dict) and "mean" in value and "low" in value:
            interval = f"{value['low']:.4f} to {value['high']:.4f}" if result["count"] > 1 else "none of one"
            small = [f"{baseline[name]['mean']:.4f}"] if baseline else []
            table.add_row(name.upper(), f"{value['mean']:.4f}", interval, *small, MEANING.get(name, "0 is equal, lower is closer"))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for sentence in result.get("verdict", []):
        console.print(cell(sentence))
