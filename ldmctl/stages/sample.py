"""From noise to pictures: one PNG per seed, the same bytes whatever else is made with it.

Several ranks share the seeds, a batch each in turn; the first one writes the grid.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ldmctl.config.schemas.sample import Sample
from ldmctl.console import Console
from ldmctl.diffusion.beginning import caveat, sides_of
from ldmctl.diffusion.labels import choose_labels, unused_labels
from ldmctl.diffusion.model import open_model
from ldmctl.diffusion.trace import SHOWN, refuse_foreign_trace, write_trace
from ldmctl.errors import MismatchError, Stopped
from ldmctl.pictures.album import KEY, Found, look, remove
from ldmctl.pictures.images import read
from ldmctl.pictures.png import grid, sweep, write_png
from ldmctl.signals import Signals
from ldmctl.storage.folder import make_folder
from ldmctl.training import engine as engines

GRID = 256  # pictures that grid.png shows at most


def sample(config: Sample, out: str | Path, *, console: Console, overwrite: bool = False) -> dict[str, Any]:
    """Make `count` pictures in the folder `out`, and grid.png beside them; those that are there already are kept.

    A file there that ldmctl did not make is a MismatchError, pictures that are not finite a DivergedError. So are pictures of another
    model or other settings, unless `overwrite`, which deletes them.
    """
    # Build the parts.
    engine = engines.start(config.machine)
    model = open_model(config.run, engine, tile=config.machine.tile, ae=config.ae)
    seeds = list(range(config.seed, config.seed + config.count))
    labels = choose_labels(config, model.header, seeds)
    if engine.leads and (ignored := unused_labels(config, model.header)):
        console.warn(ignored)

    settings = model.settings(config)
    if engine.leads and (unusual := caveat(config, model.header)):
        console.warn(unusual)

    # Find what is still to be made.
    folder = Path(out).expanduser()
    fresh = not folder.exists()
    make_folder(folder)
    names = [model.name_of(label) for label in labels]
    texts = {seed: describe({"seed": seed, "label": name, **settings}) for seed, name in zip(seeds, names, strict=True)}
    if config.trace:
        refuse_foreign_trace(folder)
    sides = sides_of(config, model.header)
    found = engines.on_all(engine, lambda: look_around(folder, texts, sides=sides, overwrite=overwrite))
    if isinstance(found, MismatchError):
        raise found
    missing, others = found
    label_of = dict(zip(seeds, labels, strict=True))
    if others:
        console.say(f"--overwrite deletes {len(others)} pictures of another model, other settings or other labels in {folder}.")

    # Make it, a batch at a time on each rank.
    chunks = [missing[first : first + config.batch] for first in range(0, len(missing), config.batch)]
    there, done = len(seeds) - len(missing), 0
    with Signals(console.say) as signals, console.bar("sampling", len(seeds), done=there) as bar:
        for first in range(0, len(chunks), engine.world):
            together = chunks[first : first + engine.world]
            mine = together[engine.rank] if engine.rank < len(together) else []
            pictures, bad = model.make(config, mine, [label_of[seed] for seed in mine])
            if bad := engine.joined(bad):
                if fresh and not first and engine.leads:
                    with suppress(OSError):
                        folder.rmdir()
                model.refuse(bad, config)
            if others and not first:
                if engine.leads:
                    remove(folder, others)
                engine.barrier()
            for seed, picture in zip(mine, pictures, strict=True):
                write_png(folder / f"{seed:06d}.png", picture, {KEY: texts[seed]})
            done += sum(map(len, together))
            bar.advance(there + done, amount=done)
            if engine.any(signals.asked) and done < len(missing):
                again = "Run the same command to continue." if not overwrite else "Run the same command without --overwrite to continue."
                raise Stopped(f"Stopped after {done} of {len(missing)} pictures, which are in {folder}. {again}")

    # Say where.
    engine.barrier()
    if engine.leads:
        shown = torch.stack([read(folder / f"{seed:06d}.png", channels=int(model.header["image"]["channels"])) for seed in seeds[:GRID]])
        write_png(folder / "grid.png", grid(shown), {KEY: describe({"grid": seeds[:GRID], **settings})})
        if config.trace:
            write_trace(model, config, seeds, labels, folder, describe({"trace": seeds[:SHOWN], **settings}))
    engine.barrier()
    console.say(f"{len(seeds)} pictures are in {folder} ({len(missing)} made now), all together in {folder / 'grid.png'}.")
    return {
        "samples": str(folder),
        "grid": str(folder / "grid.png"),
        "count": len(seeds),
        "made": len(missing),
        "seeds": seeds,
        "labels": names,
    }


def look_around(folder: Path, texts: dict[int, str], *, sides: tuple[int, int], overwrite: bool) -> Found | MismatchError:
    """What `look` finds, or what it raises, so that each rank can end with it; what a killed command left half written is deleted."""
    sweep(folder)
    try:
        return look(folder, texts, sides=sides, overwrite=overwrite)
    except MismatchError as error:
        return error


def describe(facts: dict[str, Any]) -> str:
    """What a picture's PNG text says of how it was made, one JSON object."""
    return json.dumps(facts, sort_keys=True)
