"""ldmctl ema: an average of the weights whose length is chosen after training."""

from pathlib import Path
from typing import Annotated

import typer

from ldmctl.cli import options
from ldmctl.cli.options import Console


def command(
    length: Annotated[float, typer.Option("--length", help="How long the average is, relative to training: 0.03 to 0.2, such as 0.08.")],
    run: Annotated[str, typer.Option("--run", help="The run folder, trained with loop.keep.averages.")] = "runs/ldm",
    step: Annotated[
        int | None, typer.Option("--step", min=1, help="The training step at which the average ends [default: the last one stored].")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file [default: RUN/snapshots/ema-LENGTH.safetensors].")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build an average of the weights, of any length, from those that a run stored while training."""
    from ldmctl.training.posthoc_ema import ROUGH, snapshot_name, write_model

    console = Console(quiet=quiet)
    file, average = write_model(Path(run).expanduser(), length, step=step, out=out and out.expanduser())
    header, names = average.header, list(average.used)
    console.say(
        f"The average of length {length:g} at step {header['step']:,} is in {file}, "
        f"built from {len(names)} stored {'one' if len(names) == 1 else 'ones'}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}."
    )
    if average.misfit > ROUGH:
        console.warn(
            f"The stored averages only come near to this length: its profile is wrong by {average.misfit:.0%}. "
            "Store them more often (loop.keep.averages), or take a length nearer to 0.05 to 0.1."
        )
    named = f"{run.rstrip('/')}@{snapshot_name(length, step)}" if out is None else None
    use = f"ldmctl sample --run {named}" if named and header.get("kind") == "diffusion" else None
    if use:
        console.say(f"Pictures from it: {use}")
    if json:
        options.print_json(
            {
                "model": str(file),
                "run": named,
                "length": length,
                "step": header["step"],
                "built_from": average.used,
                "misfit": average.misfit,
                "sample": use,
            }
        )
