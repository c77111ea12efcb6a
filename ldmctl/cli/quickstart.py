"""ldmctl quickstart: the whole chain on an embedded data set, each verb as you would type it."""

import contextlib
import io
import json as json_module
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ldmctl.cli import encode_dataset, eval_lpips, fit_ae, fit_diffusion, options, sample
from ldmctl.cli.output import Apart
from ldmctl.config.presets import pictures_of
from ldmctl.console import Console, duration
from ldmctl.errors import ConfigError

SENTENCE = "a blue star on a dark background"


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for everything.")] = Path("quickstart"),
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """From pictures to samples on two CPU cores: no network, no weights, nothing to prepare."""
    refuse_other_folder(out)
    began = time.monotonic()
    console = Console(quiet=quiet or json)
    ae, cache, ldm, samples, said = (str(out / name) for name in ("runs/ae", "cache", "runs/ldm", "samples", "sentence"))
    results = {}
    console.say("The whole chain on `shapes`: coloured shapes, drawn on the fly. Stop it when you like; the same command continues.")
    for verb, words, why in (
        (fit_ae, ["--data", "shapes", "--out", ae], "fits an autoencoder: pictures to small latents and back"),
        (eval_lpips, ["--run", ae, "perceptual=null"], "measures its reconstructions of pictures it has not seen"),
        (encode_dataset, ["--run", ae, "--out", cache], "encodes every picture once, and measures the latents"),
        (fit_diffusion, ["--latents", cache, "--out", ldm], "fits a denoiser to the cached latents"),
        (sample, ["--run", ldm, "-n", "64", "--guidance", "2", "--out", samples], "makes new pictures"),
        (sample, ["--run", ldm, "-n", "16", "--prompt", SENTENCE, "--guidance", "3", "--out", said], "makes pictures of a sentence"),
    ):
        name = verb.__name__.rpartition(".")[2].replace("_", "-")
        if said in words and not hears_words(ldm):  # begun by a version that did not listen to captions
            continue
        console.say(f"\n$ ldmctl {name} {shlex.join(words)}\n# {why}")
        results["sentence" if said in words else name] = perform(verb.command, words, quiet=quiet or json)
    score = results["eval-lpips"]["psnr"]["mean"]
    console.say(
        f"\nDone in {duration(time.monotonic() - began)}. Reconstructions of unseen pictures: {score:.1f} dB PSNR.\n"
        f"  {ae}/samples        originals over reconstructions while the autoencoder learned\n"
        f"  {ldm}/samples       the same seeds while the denoiser learned\n"
        f"  {samples}/grid.png  64 new pictures\n"
        + (f"  {said}/grid.png 16 pictures of `{SENTENCE}`\n" if "sentence" in results else "")
        + "Next, write a sentence of your own, or ask for a class:\n"
        f'  ldmctl sample --run {ldm} --prompt "a green star on a light background" --guidance 3 --out {out}/yours\n'
        f"  ldmctl report {ldm} --out {out}/report.html   # all of it on one page\n"
        f'  ldmctl sample --run {ldm} --label "red circle" --guidance 3 -n 16 --out {out}/red\n'
        f"  ldmctl fit-ae --data FOLDER_OF_YOUR_PICTURES && ldmctl encode-dataset && ldmctl fit-diffusion && ldmctl sample"
    )
    if json:
        options.print_json({"out": str(out), "seconds": round(time.monotonic() - began, 1), **results})


def hears_words(run: str) -> bool:
    """Whether the model of a run listens to captions."""
    from ldmctl.storage.weights import read_header

    return "text" in read_header(Path(run) / "model.safetensors").get("conditions", {})


def refuse_other_folder(out: Path) -> None:
    """A ConfigError for a folder that holds anything but a quickstart, such as a run folder or pictures."""
    out = out.expanduser()
    if out.is_file():
        raise ConfigError(f"{out} is a file; --out wants a folder.")
    others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith(".")) if out.is_dir() else []
    if not set(others) <= {"runs", "cache", "samples", "sentence"} and pictures_of(str(out / "runs" / "ae")).get("data") != "shapes":
        raise ConfigError(f"{out} holds other things than a quickstart ({', '.join(others[:3])}). Name another --out, a new folder.")
    if home := next((parent for parent in out.absolute().parents if (parent / "run.json").exists()), None):
        raise ConfigError(f"--out {out} lies in {home}, which is a run folder or a cache; name another --out.")


def perform(verb: Callable[..., None], words: list[str], *, quiet: bool) -> dict:
    """Run one verb's command in this process; what it would print with --json."""
    single = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    single.command()(verb)
    stdout = io.StringIO()
    with contextlib.redirect_stdout(Apart(stdout)):
        code = single(args=[*words, "--json", *(["--quiet"] if quiet else [])], standalone_mode=False)
    if code:  # such as 130, a second Ctrl-C
        raise typer.Exit(code)
    return json_module.loads(stdout.getvalue())
