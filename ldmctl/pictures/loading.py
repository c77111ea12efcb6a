"""From a config to pictures on the device: datasets by split, and this rank's rows of each training batch."""

import os
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ldmctl import registry
from ldmctl.config.schemas.shared import Loop
from ldmctl.config.schemas.shared import Pictures as PictureKeys
from ldmctl.errors import ConfigError
from ldmctl.pictures.batches import Batch, Pictures
from ldmctl.pictures.images import to_float
from ldmctl.pictures.workers import batches
from ldmctl.training.engine import Engine
from ldmctl.training.order import batch_items, seed_of


def open_pictures(config: PictureKeys, split: str) -> Pictures:
    """One split of the data that the config names, prepared as its `image` section says."""
    if config.dataset is None:
        raise ConfigError("No pictures are named: give --data NAME or --data FOLDER. `ldmctl configs list` shows the names.")
    return Pictures(registry.build("dataset", config.dataset, split=split), config.image, split=split)


def training_batches(
    pictures: Pictures, loop: Loop, engine: Engine, *, first: int, seen: int | None = None
) -> Iterator[tuple[Tensor, Batch]]:
    """(items of the global batch, this rank's pictures) for each step from `first` on; a pure function of seed and step.

    `seen` is how many items the steps before `first` took, where their batch was another.
    """
    shift = 0 if seen is None else seen - first * loop.batch
    rows = engine.share(loop.batch)
    drawn = pictures.settings.flip or pictures.settings.crop == "random"

    def order() -> Iterator[list[tuple[int, int]]]:
        for step in range(first, loop.steps):
            items = batch_items(loop.seed, len(pictures), loop.batch, step, loop.shuffle, shift=shift).tolist()
            yield list(enumerate(items, start=step * loop.batch + shift))[rows]

    seeds = (lambda position: seed_of("picture", loop.seed, position)) if drawn else None
    stream = batches(pictures, order(), seeds=seeds, workers=workers(loop.workers, pictures, engine))
    for step, batch in enumerate(stream, start=first):
        yield batch_items(loop.seed, len(pictures), loop.batch, step, loop.shuffle, shift=shift), batch


def in_order(pictures: Pictures, batch: int, engine: Engine, *, wanted: int | None = None, count: int | None = None) -> Iterator[Batch]:
    """All pictures, or the first `count`, once and as they are: center crop, no flip."""
    total = len(pictures) if count is None else min(count, len(pictures))
    chunks = ([(i, i) for i in range(first, min(first + batch, total))] for first in range(0, total, batch))
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
    """uint8 [n,C,H,W]: the first few pictures, the same in every run."""
    return pictures.batch([(index, None) for index in range(min(count, len(pictures)))]).image
