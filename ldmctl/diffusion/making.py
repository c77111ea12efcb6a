"""Samples to be judged: made a batch at a time into a folder of their own, so that a command that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ldmctl.config.schemas.sample import Sample
from ldmctl.console import Console
from ldmctl.diffusion.labels import choose_labels
from ldmctl.diffusion.model import Model
from ldmctl.errors import Stopped
from ldmctl.pictures.album import KEY
from ldmctl.pictures.png import read_png_text, write_png
from ldmctl.signals import Signals


def make_samples(model: Model, config: Sample, root: Path, console: Console) -> tuple[Path, int]:
    """(the folder below `root` with `count` samples of this model by these settings, how many of them were made now).

    The folder's name holds a hash of both, so samples of others never mix with them.
    """
    seeds = list(range(config.seed, config.seed + config.count))
    labels = choose_labels(config, model.header, seeds)
    settings = model.settings(config)
    asked = {"label": config.label, "seed": config.seed, **settings}
    folder = root / f"samples-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]}"
    texts = {
        seed: json.dumps({"seed": seed, "label": model.name_of(label), **settings}, sort_keys=True)
        for seed, label in zip(seeds, labels, strict=True)
    }
    label_of = dict(zip(seeds, labels, strict=True))
    missing = [seed for seed in seeds if read_png_text(folder / f"{seed:06d}.png").get(KEY) != texts[seed]]
    done = 0
    with Signals(console.say) as signals, console.bar("sampling", len(seeds), done=len(seeds) - len(missing)) as bar:
        for first in range(0, len(missing), config.batch):
            mine = missing[first : first + config.batch]
            pictures, bad = model.make(config, mine, [label_of[seed] for seed in mine])
            model.refuse(bad, config)
            for seed, picture in zip(mine, pictures, strict=True):
                write_png(folder / f"{seed:06d}.png", picture, {KEY: texts[seed]})
            done += len(mine)
            bar.advance(len(seeds) - len(missing) + done, amount=done)
            if signals.asked and done < len(missing):
                raise Stopped(
                    f"Stopped after {done:,} of {len(missing):,} samples, which are in {folder}. Run the same command to continue."
                )
    return folder, len(missing)
