"""What a command of samples is to do, found before anything is written: the model, the pictures that are asked for, and what is in the way.

All that such a command refuses is refused here, so that a dry run can say it, too.
"""

import errno
import json
import os
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.again import apart
from ldmctl.diffusion.beginning import sides_of
from ldmctl.diffusion.editing import levels_below
from ldmctl.diffusion.grouping import with_batch
from ldmctl.diffusion.model import Model, open_model
from ldmctl.diffusion.prompts import expect_encoder
from ldmctl.diffusion.shown import shown_of
from ldmctl.diffusion.trace import refuse_foreign_trace
from ldmctl.diffusion.wanted import Wanted, wanted
from ldmctl.endings import may
from ldmctl.errors import MismatchError
from ldmctl.pictures.album import TRACE, Found, file_of, is_shelved, look, shared
from ldmctl.pictures.recorded import Recorded
from ldmctl.storage.apart import refuse_lost
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine


class Task(NamedTuple):
    """A model and what it is asked for."""

    config: Sample
    model: Model
    asked: Wanted
    settings: dict[str, Any]  # what the pictures' texts share

    @property
    def shelved(self) -> bool:
        """Whether the pictures go onto shelves."""
        return is_shelved(len(self.asked))

    def text(self, place: int) -> str:
        """What the PNG text says of how the picture at a place was made."""
        return describe({"seed": self.asked.seeds[place], **self.model.said(self.asked.ask(place), self.config), **self.settings})


def undertake(config: Sample, engine: Engine, again: Recorded | None = None) -> Task:
    """The task of a config; what does not fit the model is an error. With `again` it is a MismatchError unless it makes that picture."""
    model = open_model(config.run, engine, tile=config.machine.tile, ae=config.ae)
    config = with_batch(config, model)
    header = model.header_for(config)  # refuses words and classes that were learned for another model
    asked = wanted(config, header, (weaker := model.weaker(config)) and weaker.header)
    expect_encoder(config, model.network, header)
    settings = model.settings(config)
    shown_of(config, model, [asked.seeds[0]], sides_of(config, model.header))  # refuses a map of classes that it does not know
    levels_below(model.schedule, config.steps, config.spacing, config.level)  # refuses steps and levels that its schedule does not have
    if again:
        if how := apart(again, settings, model.said(asked.ask(0), config)):
            raise MismatchError(f"{again.file} cannot be made again here: it was made {how}.")
        kept = {"token": again.said["token"]} if "token" in again.said else {}
        settings = {**shared(again.text), **kept}  # byte for byte, wherever what it was made of lies now
    return Task(config, model, asked, settings)


def look_around(task: Task, folder: Path, *, overwrite: bool) -> Found:
    """What a folder lacks of the pictures and what is in their way; files of others there, and without `overwrite` other pictures, are a
    MismatchError, files that the pictures are made by and that would be lost a ConfigError."""
    if task.config.trace:
        refuse_foreign_trace(folder)
    seeds, sides = task.asked.seeds, sides_of(task.config, task.model.header)
    found = look(folder, seeds, task.text, sides=sides, overwrite=overwrite)
    replaced = (file_of(folder, seeds[place], shelved=task.shelved) for place in found.missing)
    together = ["grid.png", "samples.npz", *(TRACE if task.config.trace or found.others else ())]
    refuse_lost(task.config, chain(found.others, replaced, (folder / name for name in together)))
    return found


def foresee(config: Sample, out: str | Path, *, overwrite: bool = False, again: Recorded | None = None) -> None:
    """For a dry run: raises what the command would raise before it makes its first picture in the folder `out`; nothing is written."""
    task = undertake(config, engines.start(config.machine), again)
    folder = Path(out).expanduser()
    refuse_place(folder)
    if folder.exists():
        look_around(task, folder, overwrite=overwrite)


def refuse_place(folder: Path) -> None:
    """A MismatchError where no folder can be made, or none that may be written to, as `make_folder` says it."""
    there = next(place for place in (folder, *folder.parents, Path()) if os.path.lexists(place))
    if there == folder and not there.is_dir():
        raise MismatchError(f"{there} is a file; --out wants a folder.")
    if there == folder and not may(there, os.W_OK | os.X_OK):
        raise MismatchError(f"The folder {there} may not be written to. Name another --out.")
    if not (there.is_dir() and may(there, os.W_OK | os.X_OK)):
        trouble = errno.EACCES if there.is_dir() else errno.ENOTDIR
        raise MismatchError(f"The folder {folder} cannot be made: {os.strerror(trouble)}. Name another --out.")


def describe(facts: dict[str, Any]) -> str:
    """What a picture's PNG text says of how it was made, one JSON object."""
    return json.dumps(facts, sort_keys=True)
