"""From noise to pictures: one PNG per seed, the same bytes whatever else is made with it."""

import json
from pathlib import Path
from typing import Any

import torch

from ldmctl import registry
from ldmctl.attribution import expect_shape, foreign_plugins
from ldmctl.config.schemas.sample import Sample
from ldmctl.console import Console
from ldmctl.diffusion.labels import choose_labels
from ldmctl.diffusion.network import build_schedule, load_network
from ldmctl.diffusion.sampling import even_threads, rows_of, sample_latents
from ldmctl.errors import DataError, MismatchError, Stopped
from ldmctl.latents.codec import load_codec
from ldmctl.pictures.images import read, to_uint8
from ldmctl.pictures.png import grid, read_png_text, write_png
from ldmctl.signals import Signals
from ldmctl.storage.folder import make_folder
from ldmctl.storage.record import model_file
from ldmctl.training import engine as engines

GRID = 256  # pictures that grid.png shows at most


def sample(config: Sample, out: str | Path, *, console: Console, overwrite: bool = False) -> dict[str, Any]:
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
    parts = (network.denoiser, network.conditioner, schedule, codec.autoencoder, sampler)
    if third := foreign_plugins(parts):
        settings["plugins"] = third  # another version of them makes other pictures
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
    with even_threads(), Signals(console.say) as signals, console.bar("sampling", len(seeds), done=len(seeds) - len(missing)) as bar:
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
            decoded = codec.decode(padded, (side, side))
            expect_shape(decoded, (rows, int(header["image"]["channels"]), side, side), codec.autoencoder, "decode")
            for seed, picture in zip(chunk, to_uint8(decoded), strict=False):
                write_png(files[seed], picture.cpu(), {"ldmctl": texts[seed]})
            bar.advance(len(seeds) - len(missing) + first + len(chunk), amount=first + len(chunk))
            if signals.asked and first + len(chunk) < len(missing):
                raise Stopped(
                    f"Stopped after {first + len(chunk)} of {len(missing)} pictures, which are in {folder}. Run the same command to continue."
                )

    # Say where.
    shown = torch.stack([read(files[seed], channels=int(header["image"]["channels"])) for seed in seeds[:GRID]])
    write_png(folder / "grid.png", grid(shown))
    console.say(f"{len(seeds)} pictures are in {folder} ({len(missing)} made now), all together in {folder / 'grid.png'}.")
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


def describe(seed: int, label: int, classes: list[str], settings: dict[str, Any]) -> str:
    """What a picture's PNG text says of how it was made, one JSON object."""
    return json.dumps({"seed": seed, "label": classes[label] if label >= 0 else None, **settings}, sort_keys=True)
