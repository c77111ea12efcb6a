"""ldmctl sample"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from ldmctl.cli import options
from ldmctl.cli import sample_options as own
from ldmctl.config.presets import compose, wished
from ldmctl.config.schemas.sample import Sample
from ldmctl.errors import ConfigError

VARIED = 0.75  # the strength of --variations where none is named
SHOWN = 8  # steps in the strip of --trace where no others are named


def command(
    overrides: Annotated[list[str] | None, options.settings("steps=20")] = None,
    run: own.Run = None,
    ae: own.Ae = None,
    count: own.Count = None,
    seed: own.Seed = None,
    seeds: own.Seeds = None,
    steps: own.Steps = None,
    sampler: own.Sampler = None,
    label: own.Label = None,
    prompt: own.Prompt = None,
    prompts: own.Prompts = None,
    token: own.Token = None,
    map: own.Map = None,
    picture: own.Picture = None,
    each: own.Each = None,
    guidance: own.Guidance = None,
    negative: own.Negative = None,
    autoguide: own.Autoguide = None,
    start: own.From = None,
    strength: own.Strength = None,
    variations: own.Variations = None,
    mask: own.Mask = None,
    outpaint: own.Outpaint = None,
    guide: own.Guide = None,
    size: own.Size = None,
    interpolate: own.Interpolate = None,
    trace: own.Trace = False,
    again: own.Again = None,
    npz: own.Npz = None,
    preview: own.Preview = False,
    out: own.Out = None,
    overwrite: own.Overwrite = False,
    device: options.Device = None,
    devices: own.Devices = None,
    precision: options.Precision = None,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Make pictures: one PNG per seed and a grid of them all."""
    words = overrides or []
    start, strength = beginning(start, variations, strength, words)
    model = {"run": run, "ae": ae, "machine__device": device, "machine__devices": devices, "machine__precision": precision}
    many = {"count": count, "seed": seed, "seeds": seeds, "each": each, "npz": npz or None, "trace": steps_shown(trace, words)}
    heard = {"label": label or None, "prompt": prompts_of(prompt, prompts), "token": token or None, "map": map, "picture": picture}
    way = {"steps": steps, "sampler": sampler, "guidance": guidance, "negative": negative, "autoguide": autoguide}
    edits = {"start": start, "strength": strength, "mask": mask, "outpaint": outpaint, "guide": guides_of(guide, words)}
    noise = {"size": size, "interpolate": list(interpolate) if interpolate else None}
    flags = options.given(**model, **many, **heard, **way, **edits, **noise)

    out = out or ("again" if again else "samples")
    if again is None:
        (settings, source), made = compose(Sample, overrides=words, flags=flags), None
    else:
        from ldmctl.diffusion.again import repeat

        settings, made = repeat(again, out, words, flags)
        source = f"{again} again, by {settings.run}"
    keys: dict[str, Any] = {"settings": settings, "out": out, "overwrite": overwrite, "again": made}
    manner = options.Manner(json, quiet, verbose, offline, dry_run)
    options.perform(settings, source, manner, partial(make, **keys, preview=preview), plan=partial(plan, **keys), out=out)


def make(console: options.Console, *, settings: Sample, out: str, overwrite: bool, again: Any, preview: bool) -> dict[str, Any]:
    """The pictures themselves, and the grid in the terminal if that is wanted."""
    from ldmctl.stages.sample import sample

    answer = sample(settings, out, console=console, overwrite=overwrite, again=again)
    if preview:
        from ldmctl.pictures.terminal import show

        show(Path(answer["grid"]), console)
    return answer


def plan(*, settings: Sample, out: str, overwrite: bool, again: Any) -> dict[str, Any]:
    """What they would cost; what the command would refuse is refused."""
    from ldmctl.diffusion.task import foresee
    from ldmctl.plan import plan_sample

    foresee(settings, out, overwrite=overwrite, again=again)
    return plan_sample(settings)


# -- options that stand for others ------------------------------------------------------------


def beginning(start: str | None, variations: str | None, strength: float | None, words: list[str]) -> tuple[str | None, float | None]:
    """(what to start from, at which strength): `--variations` is `--from` with a strength of its own, unless one is named anywhere."""
    if variations is None:
        return start, strength
    if start is not None:
        raise ConfigError("--variations is --from with another --strength: leave one of them away.")
    named = strength is not None or wished(Sample, words, "strength") is not None
    return variations, strength if named else VARIED


def steps_shown(trace: bool, words: list[str]) -> int | None:
    """How many steps `--trace` shows; None where it is not given, or they are named anywhere."""
    return SHOWN if trace and wished(Sample, words, "trace") is None else None


def guides_of(names: list[str] | None, words: list[str]) -> Any:
    """The key `guide` of the names that were given; a ConfigError where keys of one are given for several."""
    if names and len(names) > 1:
        if any(word.startswith("guide.") for word in words):
            raise ConfigError(
                "guide.KEY=VALUE is a key of one guide. Give several as a list: 'guide=[{type: colour, colour: red}, {type: ...}]'."
            )
        return names
    return {"type": names[0]} if names else None


def prompts_of(prompts: list[str] | None, file: Path | None) -> list[str] | None:
    """The prompts of the options, and then those of a file; None without any."""
    return [*(prompts or []), *lines_of(file)] or None


def lines_of(file: Path | None) -> list[str]:
    """The prompts of a file, one on each line that is not empty; a ConfigError where it cannot be read."""
    if file is None:
        return []
    try:
        lines = file.expanduser().read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigError(f"The prompts in {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"The prompts in {file} are not UTF-8: save the file as UTF-8.") from None
    if not (said := [line.strip() for line in lines if line.strip()]):
        raise ConfigError(f"{file} has no prompts: write one on each line.")
    return said
