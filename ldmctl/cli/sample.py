"""ldmctl sample"""

from pathlib import Path
from typing import Annotated

import typer

from ldmctl.cli import options
from ldmctl.config.presets import compose, wished
from ldmctl.config.schemas.sample import Sample
from ldmctl.errors import ConfigError

VARIED = 0.75  # the strength of --variations where none is named


def command(
    overrides: Annotated[list[str] | None, options.settings("steps=20")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="The run folder of fit-diffusion [default: runs/ldm]; runs/ldm@best names a snapshot.")
    ] = None,
    ae: Annotated[
        str | None, typer.Option("--ae", help="A run folder of fit-ae whose decoder is used, such as one fitted with train=decoder.")
    ] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="How many pictures [default: 16].")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the first picture; the next ones count up [default: 0].")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="The seeds, in place of --seed and -n: numbers and ranges, such as 0-63,100.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the sampler per picture [default: 50].")] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="ddim, ddpm, ... [default: ddim]", autocompletion=options.complete_plugin("sampler"))
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="A class: a name, class:NAME, index:N from 0, `none`, or `all`; give it again for several."),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Words; give it again for several. 'a cat :0.6 | a dog :0.4' blends their embeddings."),
    ] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help="A file with a prompt on each line.")] = None,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", metavar="FILE", help="A word of fit-token that prompts may say; give it again for several."),
    ] = None,
    map: Annotated[
        str | None, typer.Option("--map", help="A map to paint by, or a folder of them, taken in turn; for models that listen to maps.")
    ] = None,
    picture: Annotated[
        str | None, typer.Option("--picture", help="A small picture to make large, or a folder of them; for models that listen to them.")
    ] = None,
    each: Annotated[int | None, typer.Option("--each", min=1, help="Pictures of each label or prompt, in place of -n.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", min=0, help="Classifier-free guidance; 1 is none [default: 1].")] = None,
    negative: Annotated[str | None, typer.Option("--negative", help="A class, or words, for guidance to go away from.")] = None,
    autoguide: Annotated[
        str | None, typer.Option("--autoguide", help="A weaker run of fit-diffusion, or a snapshot of this one, to go away from.")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="A picture to start from, or a folder of them, taken in turn.")] = None,
    strength: Annotated[
        float | None, typer.Option("--strength", help="How much of --from may change: 0 nothing, 1 all [default: 0.6, with a mask 1].")
    ] = None,
    variations: Annotated[
        str | None, typer.Option("--variations", help="Variations of this picture: --from it with --strength 0.75, a seed each.")
    ] = None,
    mask: Annotated[str | None, typer.Option("--mask", help="A picture that is white where --from is painted anew.")] = None,
    outpaint: Annotated[
        str | None, typer.Option("--outpaint", metavar="LEFT,TOP,RIGHT,BOTTOM", help="Pixels around the picture of --from to paint.")
    ] = None,
    guide: Annotated[
        list[str] | None,
        typer.Option(
            "--guide",
            help="colour, perceptual, classifier, ...: what pictures should be like; its keys are guide.KEY=VALUE.",
            autocompletion=options.complete_plugin("guide"),
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="Another size than the model was trained on, where it allows one.")
    ] = None,
    interpolate: Annotated[
        tuple[int, int] | None,
        typer.Option("--interpolate", metavar="SEED_A SEED_B", help="Pictures from the noise of one seed to that of another."),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Also show how the first pictures come about: trace.png, trace.gif, trace.webp.")
    ] = False,
    again: Annotated[
        str | None,
        typer.Option("--again", metavar="FILE.png", help="Regenerate a picture that ldmctl made, from the settings stored in the file."),
    ] = None,
    npz: Annotated[
        bool | None, typer.Option("--npz", help="Also write samples.npz, which tools that compute FID read.", show_default=False)
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show the grid in the terminal, where it can draw.")] = False,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The folder for the pictures [default: samples; with --again: again].")
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Make pictures again that are there already, and delete those that another command made."),
    ] = False,
    device: options.Device = None,
    devices: Annotated[int | None, typer.Option("--devices", min=1, help="Devices of this machine that share the pictures.")] = None,
    precision: options.Precision = None,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Make pictures: one PNG per seed and a grid of them all."""
    if variations is not None:
        if start is not None:
            raise ConfigError("--variations is --from with another --strength: leave one of them away.")
        start = variations
        if strength is None and wished(Sample, overrides, "strength") is None:
            strength = VARIED
    if guide and len(guide) > 1 and any(word.startswith("guide.") for word in overrides or []):
        raise ConfigError(
            "guide.KEY=VALUE is a key of one guide. Give several as a list: 'guide=[{type: colour, colour: red}, {type: ...}]'."
        )
    flags = options.given(
        run=run,
        ae=ae,
        count=count,
        seed=seed,
        seeds=seeds,
        each=each,
        steps=steps,
        sampler=sampler,
        label=label or None,
        prompt=[*(prompt or []), *lines_of(prompts)] or None,
        token=token or None,
        map=map,
        picture=picture,
        guidance=guidance,
        negative=negative,
        autoguide=autoguide,
        start=start,
        strength=strength,
        mask=mask,
        outpaint=outpaint,
        guide=guide if guide and len(guide) > 1 else {"type": guide[0]} if guide else None,
        size=size,
        trace=8 if trace and not any(word.startswith("trace=") for word in overrides or []) else None,
        interpolate=list(interpolate) if interpolate else None,
        npz=npz or None,
        machine__device=device,
        machine__devices=devices,
        machine__precision=precision,
    )
    manner = options.Manner(json, quiet, verbose, offline, dry_run)
    out = out or ("again" if again else "samples")
    if again is None:
        made = None
        settings, source = compose(Sample, overrides=overrides or [], flags=flags)
    else:
        from ldmctl.diffusion.again import repeat

        settings, made = repeat(again, out, overrides or [], flags)
        source = f"{again} again, by {settings.run}"

    def work(console: options.Console) -> dict:
        from ldmctl.stages.sample import sample as make

        answer = make(settings, out, console=console, overwrite=overwrite, again=made)
        if preview:
            from ldmctl.pictures.terminal import show

            show(Path(answer["grid"]), console)
        return answer

    def plan() -> dict:
        from ldmctl.plan import plan_sample

        return plan_sample(settings)

    options.perform(settings, source, manner, work, plan=plan, out=out)


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
