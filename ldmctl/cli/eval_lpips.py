"""ldmctl eval-lpips"""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ldmctl.cli import options
from ldmctl.presets import compose, pictures_of, wished
from ldmctl.schemas import EvalLpips

MEANING = {"psnr": "dB, higher is closer", "ssim": "1 is equal", "lpips": "0 is equal, lower is closer"}


def command(
    overrides: options.Overrides = None,
    run: Annotated[
        str | None, typer.Option("--run", help="The run folder of fit-ae [default: runs/ae]; runs/ae@best names a snapshot.")
    ] = None,
    data: options.Data = None,
    pairs: Annotated[
        tuple[str, str] | None, typer.Option("--pairs", help="Two folders of pictures with equal names, instead of a run.")
    ] = None,
    device: options.Device = None,
    precision: options.Precision = None,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """LPIPS, PSNR and SSIM with 95 % intervals: of reconstructions of held-out pictures, or between two folders."""
    flags = options.given(run=run, data=data, pairs=list(pairs) if pairs else None, machine__device=device, machine__precision=precision)
    paired = pairs or wished(EvalLpips, overrides, "pairs")
    below = {} if paired else pictures_of(run or str(wished(EvalLpips, overrides, "run") or "runs/ae"))
    settings, source = compose(EvalLpips, overrides=overrides or [], flags=flags, below=below)
    manner = options.Manner(json, quiet, verbose, offline, dry_run)

    def work(voice: options.Voice) -> dict:
        from ldmctl.stages.eval_lpips import eval_lpips

        result = eval_lpips(settings, voice=voice)
        if not json:
            show(result)
        return result

    def plan() -> dict:
        from ldmctl.stages.eval_lpips import plan_eval_lpips

        return plan_eval_lpips(settings)

    options.perform(settings, source, manner, work, plan=plan)


def show(result: dict) -> None:
    """The numbers as a table on stdout."""
    table = Table(
        "measure", "mean", "95 % interval", "", box=None, title=f"{result['count']:,} pictures: {result['of']}", title_justify="left"
    )
    for name, value in result.items():
        if isinstance(value, dict):
            interval = f"{value['low']:.4f} to {value['high']:.4f}" if result["count"] > 1 else "none of one"
            table.add_row(name.upper(), f"{value['mean']:.4f}", interval, MEANING.get(name, ""))
    Console(highlight=False, soft_wrap=True).print(table)
