"""From a config to pictures on the device: datasets by split, and this rank's rows of each training batch."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from ldmctl import registry
from ldmctl.config.differences import PLACES
from ldmctl.config.schemas.shared import Loop
from ldmctl.config.schemas.shared import Pictures as PictureKeys
from ldmctl.errors import ConfigError, DataNotFound
from ldmctl.pictures.batches import Batch, Pictures, evenly
from ldmctl.pictures.images import to_float
from ldmctl.pictures.promised import opened_as_promised
from ldmctl.pictures.workers import batches
from ldmctl.training.engine import Engine
from ldmctl.training.order import batch_items, seed_of


def if_moved(told: str) -> str:
    """What to do about pictures that are not there any more, by what tells a command their place."""
    return f"If the pictures were moved, {told} names the new place."


def open_pictures(config: PictureKeys, split: str, *, moved: Callable[[str], str] = if_moved) -> Pictures:
    """One split of the data that the config names, prepared as its `image` section says.

    Where it is not there a DataNotFound says how to name its new place, in the sentence that `moved` makes of what tells it.
    """
    if config.dataset is None:
        raise ConfigError("No pictures are named: give --data NAME or --data FOLDER. `ldmctl configs list` shows the names.")
    try:
        dataset = opened_as_promised(registry.build("dataset", config.dataset, split=split))
    except DataNotFound as error:
        raise DataNotFound(f"{error}\n{moved(new_place(config))}") from None
    return Pictures(dataset, config.image, split=split)


def new_place(config: PictureKeys) -> str:
    """What tells a command where the pictures are now, and changes nothing else: an option stands for a folder with every key at its default."""
    dataset: Any = config.dataset
    fields = type(dataset).model_fields
    place = next((name for name in sorted(PLACES) if name in fields), "")
    usual = all(
        getattr(dataset, name) == field.get_default(call_default_factory=True)
        for name, field in fields.items()
        if name not in ("type", "source", place)
    )
    if place and (dataset.type != "folder" or not usual):
        return f"dataset.{place}=FOLDER"
    return "--against FOLDER" if getattr(config, "verb", "") == "eval-samples" else "--data FOLDER"


def training_batches(
    pictures: Pictures, loop: Loop, engine: Engine, *, first: int, seen: int | None = None
) -> Iterator[tuple[Tensor, Batch]]:
    """(items of the global batch, this rank's pictures) for each step from `first` on; a pure function of seed and step.

    `seen` is how many items the steps before `first` took, where their batch was another.
    """
    shift = 0 if seen is None else seen - first * loop.batch
    rows = engine.share(loop.batch)
    drawn = pictures.settings.flip or pictures.settings.crop == "random" or getattr(pictures.settings, "patch", None)

    def order() -> Iterator[list[tuple[int, int]]]:
        for step in range(first, loop.steps):
            items = batch_items(loop.seed, len(pictures), loop.batch, step, loop.shuffle, shift=shift).tolist()
            yield list(enumerate(items, start=step * loop.batch + shift))[rows]

    seeds = (lambda position: seed_of("picture", loop.seed, position)) if drawn else None
    stream = batches(pictures, order(), seeds=seeds, workers=workers(loop.workers, pictures, engine))
    for step, batch in enumerate(stream, start=first):
        yield batch_items(loop.seed, len(pictures), loop.batch, step, loop.shuffle, shift=shift), batch


def in_order(pictures: Pictures, batch: int, engine: Engine, *, wanted: int | None = None, count: int | None = None) -> Iterator[Batch]:
    """All pictures, or `count` of them, spread evenly, once and as they are: center crop, no flip."""
    rows: Sequence[int] = range(len(pictures)) if count is None else evenly(len(pictures), count).tolist()
    chunks = ([(i, i) for i in rows[first : first + batch]] for first in range(0, len(rows), batch))
    yield from batches(pictures, chunks, workers=workers(wanted, pictures, engine))


def workers(wanted: int | None, pictures: Pictures, engine: Engine) -> int:
    """Processes that decode: as wanted, else none where the network itself needs the cores and memory holds the set."""
    if wanted is not None:
        return wanted
    return 0 if engine.device.type == "cpu" and pictures.fits else min(8, os.cpu_count() or 1)


def on_device(batch: Tensor, engine: Engine) -> Tensor:
    """uint8 [B,C,H,W] -> float32 in [-1, 1] on the engine's device; bytes travel, not floats."""
    if engine.device.type == "cuda":
        batch = batch.pin_memory()
    return to_float(batch.to(engine.device, non_blocking=True))


def shown_items(pictures: Pictures, count: int = 8) -> Any:
    """uint8 [n,C,H,W]: a few pictures, spread evenly, the same in every run."""
    return pictures.batch([(index, None) for index in evenly(len(pictures), count).tolist()]).image
