"""Samples to be judged: made a batch at a time into a folder of their own, so that a command that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ldmctl.config.schemas.sample import Sample
from ldmctl.console import Console
from ldmctl.diffusion.beginning import sides_of
from ldmctl.diffusion.model import Model
from ldmctl.diffusion.wanted import wanted
from ldmctl.errors import Stopped
from ldmctl.pictures.png import write_png
from ldmctl.pictures.png_text import KEY, Said, said_by
from ldmctl.signals import Signals
from ldmctl.storage.leftovers import sweep


def make_samples(model: Model, config: Sample, root: Path, console: Console) -> tuple[Path, int]:
    """(the folder below `root` with the samples of this model that a config asks for, how many of them were made now).

    The folder's name holds a hash of both, so samples of others never mix with them.
    """
    asked = wanted(config, model.header_for(config), (weaker := model.weaker(config)) and weaker.header)
    sides = sides_of(config, model.header)
    settings = model.settings(config)
    prompts = {"prompt": config.prompt} if config.prompt is not None else {}
    named = {
        "label": config.label,
        **prompts,
        "seed": config.seed,
        **({"seeds": config.seeds} if config.seeds is not None else {}),
        **settings,
    }
    folder = root / f"samples-{hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]}"

    sweep(folder)

    def text(place: int) -> str:
        return json.dumps({"seed": asked.seeds[place], **model.said(asked.ask(place), config), **settings}, sort_keys=True)

    def file(place: int) -> Path:
        return folder / f"{asked.seeds[place]:06d}.png"

    missing = [place for place in range(len(asked)) if said_by(file(place)) != Said(text(place), True, sides)]
    there, done = len(asked) - len(missing), 0
    with Signals(console.say) as signals, console.bar("sampling", len(asked), done=there) as bar:
        while done < len(missing):
            mine = missing[done : done + (config.batch or 1)]
            pictures, bad = model.make(config, [asked.seeds[place] for place in mine], [asked.ask(place) for place in mine])
            model.refuse(bad, config)
            for place, picture in zip(mine, pictures, strict=True):
                write_png(file(place), picture, {KEY: text(place)})
            done += len(mine)
            bar.advance(there + done, amount=done)
            if signals.asked and done < len(missing):
                raise Stopped(
                    f"Stopped after {done:,} of {len(missing):,} samples, which are in {folder}. Run the same command to continue."
                )
    return folder, len(missing)
