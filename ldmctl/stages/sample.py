"""From noise to pictures: one PNG per seed, the same bytes whatever else is made with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ldmctl import registry
from ldmctl.config.schemas.sample import Sample
from ldmctl.console import Voice
from ldmctl.diffusion.network import build_schedule, class_index, load_network
from ldmctl.diffusion.sampling import even_threads, labels_as_in_data, rows_of, sample_latents, trained_classes
from ldmctl.errors import ConfigError, DataError, MismatchError, Stopped
from ldmctl.latents.codec import Codec, autoencoder_fingerprint, load_autoencoder, statistics_of
from ldmctl.pictures.images import read, to_uint8
from ldmctl.pictures.png import grid, read_png_text, write_png
from ldmctl.signals import Signals
from ldmctl.storage.initial import same_encoder
from ldmctl.storage.record import model_file
from ldmctl.storage.run import make_folder
from ldmctl.training import engine as engines

GRID = 256  # pictures that grid.png shows at most


def sample(config: Sample, out: str | Path, *, voice: Voice, overwrite: bool = False) -> dict[str, Any]:
    """Make `count` pictures in the folder `out`, and grid.png beside them; those that are there already are kept."""
    # Build the parts.
    engine = engines.start(config.machine)
    source = model_file(config.run, verb="fit-diffusion")
    network, header, fingerprint = load_network(source, engine)
    codec, decodes = load_codec(source, header, engine, tile=config.machine.tile, ae=config.ae)
    schedule, sampler = build_schedule(header), registry.build("sampler", config.sampler)
    seeds = list(range(config.seed, config.seed + config.count))
    labels = choose_labels(config, header, seeds)
    folder = Path(out).expanduser()
    make_folder(folder)

    # Find what is still to be made.
    classes = header["classes"]
    settings = {
        "model": fingerprint,
        "autoencoder": decodes,
        "precision": str(engine.dtype).removeprefix("torch."),
        **config.model_dump(mode="json", include={"sampler", "steps", "spacing", "guidance", "batch"}),
    }
    side = int(header["image"]["size"])
    if config.machine.tile is not None and side > config.machine.tile:
        settings["tile"] = config.machine.tile
    texts = {seed: describe(seed, label, classes, settings) for seed, label in zip(seeds, labels, strict=True)}
    files = {seed: folder / f"{seed:06d}.png" for seed in seeds}
    missing = [seed for seed in seeds if overwrite or read_png_text(files[seed]).get("ldmctl") != texts[seed]]
    foreign = [files[seed] for seed in missing if files[seed].exists() and is_foreign(files[seed])]
    if foreign and not overwrite:
        raise MismatchError(
            f"{foreign[0]} is there already and is none of ldmctl's samples. Name another --out, or replace it: --overwrite."
        )

    # Make it, a batch at a time.
    label_of = dict(zip(seeds, labels, strict=True))
    rows = rows_of(config.batch)
    with even_threads(), Signals(voice.say) as signals, voice.bar("sampling", len(seeds), done=len(seeds) - len(missing)) as bar:
        for first in range(0, len(missing), config.batch):
            chunk = missing[first : first + config.batch]
            latent = sample_latents(
                network,
                schedule,
                sampler,
                engine,
                prediction=header["prediction"],
                shape=tuple(header["latent"]),
                seeds=chunk,
                labels=[label_of[seed] for seed in chunk],
                guidance=config.guidance,
                steps=config.steps,
                batch=rows,
                spacing=config.spacing,
            )
            padded = torch.cat([latent, latent[-1:].expand(rows - len(latent), -1, -1, -1)])
            for seed, picture in zip(chunk, to_uint8(codec.decode(padded, (side, side))), strict=False):
                write_png(files[seed], picture.cpu(), {"ldmctl": texts[seed]})
            bar.advance(len(seeds) - len(missing) + first + len(chunk), amount=first + len(chunk))
            if signals.asked and first + len(chunk) < len(missing):
                raise Stopped(
                    f"Stopped after {first + len(chunk)} of {len(missing)} pictures, which are in {folder}. The same command goes on."
                )

    # Say where.
    shown = torch.stack([read(files[seed], channels=int(header["image"]["channels"])) for seed in seeds[:GRID]])
    write_png(folder / "grid.png", grid(shown))
    voice.say(f"{len(seeds)} pictures are in {folder} ({len(missing)} made now), all together in {folder / 'grid.png'}.")
    names = [classes[label] if label >= 0 else None for label in labels]
    return {
        "samples": str(folder),
        "grid": str(folder / "grid.png"),
        "count": len(seeds),
        "made": len(missing),
        "seeds": seeds,
        "labels": names,
    }


def is_foreign(file: Path) -> bool:
    """Whether this is a whole picture that `sample` did not make."""
    try:
        read(file)
    except DataError:  # cut off in the middle: nothing to lose
        return False
    return "ldmctl" not in read_png_text(file)


def load_codec(
    source: Path, header: dict[str, Any], engine: engines.Engine, *, tile: int | None = None, ae: str | None = None
) -> tuple[Codec, str]:
    """(the autoencoder beside a denoiser's file, with the statistics of the latents, its fingerprint); another autoencoder is a MismatchError.

    With `ae` it is that of this run of fit-ae, which must have the same encoder.
    """
    folder = source.parent.parent if source.parent.name == "snapshots" else source.parent
    file = folder / "autoencoder.safetensors"
    autoencoder, _ = load_autoencoder(file, engine)
    if autoencoder_fingerprint(file) != header["autoencoder"]["fingerprint"]:
        raise MismatchError(f"{file} is not the autoencoder that {source} was trained with.")
    if ae is not None:
        file = model_file(ae, verb="fit-ae")
        other, made = load_autoencoder(file, engine)
        if not same_encoder(autoencoder, other, image_channels=made["context"]["image_channels"]):
            raise MismatchError(
                f"The latents of {source} are not those of {ae}, whose encoder is another. A decoder that fits is fitted by "
                "ldmctl fit-ae --init RUN_OF_THE_LATENTS --out ANOTHER train=decoder."
            )
        autoencoder = other
    return Codec(autoencoder, engine, statistics_of(header), tile=tile), autoencoder_fingerprint(file)


def choose_labels(config: Sample, header: dict[str, Any], seeds: Sequence[int]) -> list[int]:
    """A class index for each seed: the labels asked for, in turn; without any, drawn as the data has them."""
    if header["conditioner"] is None:
        if config.label is not None and config.label != ["none"]:
            raise ConfigError("This model was trained without labels, so --label has nothing to choose. Leave it away.")
        if config.guidance != 1:
            raise ConfigError(f"guidance={config.guidance:g} needs a model trained with labels; this one has none. Leave guidance at 1.")
        return [-1] * len(seeds)
    if config.guidance != 1:
        refuse_no_label(header, f"guidance={config.guidance:g}")
    if config.label is None:
        return labels_as_in_data(seeds, header["label_counts"])
    if not config.label:
        raise ConfigError("label=[] names nothing; leave it away to draw labels as in the data, or take `none`.")
    asked = [class_index(label, header["classes"]) for label in config.label]
    if min(asked) < 0:
        refuse_no_label(header, "label=none")
    refuse_untrained(header, asked)
    return [asked[index % len(asked)] for index in range(len(seeds))]


def refuse_no_label(header: dict[str, Any], key: str) -> None:
    """A ConfigError if the model has never seen an item without its label; older models do not say."""
    if not header.get("unconditional", True):
        raise ConfigError(f"{key} needs a model that also learned without labels; this one was trained with drop=0. Train with drop=0.1.")


def refuse_untrained(header: dict[str, Any], asked: Sequence[int]) -> None:
    """A ConfigError if one of these classes had no item to train with, only held-out ones."""
    classes, trained = header["classes"], trained_classes(header["label_counts"])
    if unknown := [classes[label] for label in asked if label >= 0 and label not in trained]:
        some = ", ".join(classes[label] for label in trained[:20]) + (", ..." if len(trained) > 20 else "")
        raise ConfigError(
            f"label={unknown[0]} was never learned: no training picture of this model has it. Classes that were trained: {some}."
        )


def describe(seed: int, label: int, classes: list[str], settings: dict[str, Any]) -> str:
    """What a picture's PNG text says of how it was made, one JSON object."""
    return json.dumps({"seed": seed, "label": classes[label] if label >= 0 else None, **settings}, sort_keys=True)
