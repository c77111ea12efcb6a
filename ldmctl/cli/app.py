"""The whole command line, and its edge, `run`: here every error becomes a sentence and an exit code."""

import json
import os
import re
import sys
import traceback
from typing import Annotated, Any

import typer
from rich.text import Text

from ldmctl import attribution
from ldmctl.cli import (
    cache,
    configs,
    data,
    doctor,
    ema,
    encode_dataset,
    eval_lpips,
    eval_samples,
    fit_ae,
    fit_diffusion,
    fit_token,
    plugins,
    quickstart,
    ranks,
    report,
    runs,
    sample,
    spacing,
)
from ldmctl.cli.output import arranged, hand_over
from ldmctl.cli.usage import mended, refuse_twice
from ldmctl.console import Console, escaped, terminal
from ldmctl.endings import DECODER_GONE, HOMELESS, file_trouble, is_decoder_gone, is_homeless, is_memory_shortage, vanished
from ldmctl.errors import LdmctlError, MemoryShortage, PluginError, one_line

ALSO = {  # what else makes a step of one picture need less, by verb
    "fit-ae": "a smaller image.size",
    "fit-diffusion": "machine.parallel=fsdp with more --devices, which then share the denoiser",
}

app = typer.Typer(
    name="ldmctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Train latent diffusion models from scratch on your own pictures.\n\n"
    "fit-ae, encode-dataset, fit-diffusion, sample, in this order, each starting where the previous one ended; eval-lpips and eval-samples measure. "
    "`ldmctl quickstart` shows the whole chain on shapes that it draws itself.",
)
app.command("fit-ae")(fit_ae.command)
app.command("encode-dataset")(encode_dataset.command)
app.command("fit-diffusion")(fit_diffusion.command)
app.command("sample")(sample.command)
app.command("eval-lpips")(eval_lpips.command)
app.command("eval-samples")(eval_samples.command)
app.command("ema")(ema.command)
app.command("spacing")(spacing.command)
app.command("fit-token")(fit_token.command)
app.command("quickstart")(quickstart.command)
app.add_typer(plugins.app, name="plugins")
app.add_typer(configs.app, name="configs")
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.add_typer(runs.app, name="runs")
app.command("report")(report.command)
app.command("doctor")(doctor.command)


def show_version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        from importlib.metadata import version

        print(f"ldmctl {version('ldmctl')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """What every command shares; it has no options of its own but these."""


def run(words: list[str] | None = None) -> int:
    """Run a command line -> its exit code. Nothing but a bug leaves a traceback."""
    words = sys.argv[1:] if words is None else words
    ranks.arrive()
    if not (words and words[0] in ranks.SHARED) and not ranks.alone(" ".join(["ldmctl", *words[:1]])):
        return 0
    with arranged(words):
        code = answer(words)
    ranks.depart(code)
    return code


def answer(words: list[str], known: typer.Typer = app) -> int:
    """The exit code of a command line, every error said; `known` are the commands whose options are looked at before one is run."""
    try:
        replaced = refuse_twice(typer.main.get_command(known), words)
        for sentence in replaced if ranks.speaks() else []:
            Console().warn(sentence)
        code = app(args=words, prog_name="ldmctl", standalone_mode=False) or 0
        return fail("Stopped at once; what was saved before is intact.", 130, words) if code == 130 else code
    except SystemExit as end:
        if (said := attribution.attributed(end)) is not end:
            return fail_of(said, words)
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except MemoryShortage as error:
        also = ALSO.get(words[0])
        return fail(f"{error} Or take {also}." if also else str(error), error.exit_code, words)
    except LdmctlError as error:
        return fail_of(error, words)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "show"):  # wrong usage, in Typer's words
            mended(error)
            if ranks.is_said(error.format_message()):
                return int(getattr(error, "exit_code", 2))
            error.show()
            return tell(error.format_message(), getattr(error, "exit_code", 2), words)
        if (said := attribution.attributed(error)) is not error:
            return fail_of(said, words)
        if is_homeless(error):
            return fail(HOMELESS, 2, words)
        if is_decoder_gone(error):
            return fail(DECODER_GONE, 7, words)
        if is_memory_shortage(error):
            return fail(f"Out of memory ({one_line(error)[:160]}). {less_memory(words)}", 7, words)
        if trouble := file_trouble(error) or vanished(error):
            return fail(trouble, 6, words)
        if ranks.lost_another(error):
            return fail(ranks.LEFT_ALONE, 1, words)
        traceback.print_exc()
        return fail(f"This is a bug in ldmctl{whose(error)}: {one_line(error)}{attribution.suspects()}", 1, words)


def whose(error: Exception) -> str:
    """`'s sampler 'ddim'` where it is a plugin that comes with ldmctl."""
    found = attribution.culprit(error)
    return f"'s {found.plugin.kind} {found.plugin.name!r}" if found else ""


def fail_of(error: Any, words: list[str]) -> int:
    """Say it; with -v also the frames that an error of a plugin came through."""
    verbose = any(re.fullmatch(r"--verbose|-[a-uw-z]*v[a-z]*", word) for word in words)
    if verbose and (error.__cause__ is not None or isinstance(error, PluginError)):
        traceback.print_exception(error)
    return fail(str(error), error.exit_code, words)


def fail(sentence: str, code: int, words: list[str]) -> int:
    """Say it on stderr, and with --json also as the one object on stdout; under torchrun, what all ranks have to say once."""
    if ranks.is_said(sentence):
        return code
    if ranks.FOLDER not in os.environ:  # else the command says what its ranks leave
        terminal().print(Text.assemble(("error:", "red"), " ", escaped(sentence, lines=True)))
    return tell(sentence, code, words)


def tell(sentence: str, code: int, words: list[str]) -> int:
    """With --json, the error as the one object on stdout; -> its code."""
    if not ranks.leave(sentence, code) and "--json" in words:
        hand_over(json.dumps({"error": sentence, "exit_code": code}) + "\n")
    return code


def less_memory(words: list[str]) -> str:
    """A sentence on what makes the same command need less memory, the harmless first; of keys that its verb has."""
    verb = words[0] if words else ""
    if verb == "quickstart":
        return "Type the command that it printed last by itself: it says which of its keys need less."
    if verb in ALSO:
        return (
            "In this order: 1. loop.micro=8, or auto (fewer pictures per forward, the same result); "
            f"2. loop.checkpointing=true (slower, the same result); 3. a smaller network, or {ALSO[verb]}."
        )
    return "In this order: 1. batch=4; 2. --precision bf16; 3. --device cpu."
