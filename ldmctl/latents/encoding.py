"""Pictures through the encoder, batch by batch: decoded ahead, many in one forward, fetched while the next are begun."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.latents import writer
from ldmctl.latents.codec import Codec
from ldmctl.latents.items import Item
from ldmctl.latents.layout import Layout
from ldmctl.latents.plan import Target
from ldmctl.latents.store import Store
from ldmctl.latents.writer import Rows
from ldmctl.pictures.batches import Batch, Pictures
from ldmctl.pictures.loading import on_device, workers
from ldmctl.pictures.workers import batches
from ldmctl.training.order import generator

T = TypeVar("T")


class Encoded(NamedTuple):
    """One batch of a target; the last one completes it."""

    target: Target
    last: bool
    rows: Rows
    items: list[Item]
    asked: int  # pictures, the unreadable ones among them
    arrived: Any  # an event after which rows may be read, or None


def encoded(config: EncodeDataset, layout: Layout, targets: list[Target], splits: dict[str, Pictures], codec: Codec) -> Iterator[Encoded]:
    """The batches of these targets; a batch never has pictures of two, so it is the same whichever ones there are."""
    for split, pictures in splits.items():
        chunks = [
            (target, chunk[-1] == target.new[-1], chunk)
            for target in targets
            if target.split == split
            for chunk in target.chunks(config.batch)
        ]
        order = ([(index, index) for index in chunk] for _, _, chunk in chunks)
        if chunks:
            stream = batches(pictures, order, workers=workers(config.workers, pictures, codec.engine))
            for (target, last, _), batch in zip(chunks, stream, strict=True):
                yield encode_batch(target, last, batch, pictures, codec, layout.store, flip=config.flip)


def encode_batch(target: Target, last: bool, batch: Batch, pictures: Pictures, codec: Codec, store: Store, *, flip: bool) -> Encoded:
    """What is stored of the readable pictures of a batch, on its way to the host."""
    travels = codec.engine.device.type == "cuda"  # while the next batch is begun
    good = [row for row, (asked, used) in enumerate(zip(batch.index, batch.used, strict=True)) if asked == used]
    items = [
        Item(pictures.stamp(batch.used[row]), batch.text[row], batch.label[row], pictures.captions(batch.used[row]), batch.content[row])
        for row in good
    ]
    rows: Rows = {}
    if good:
        image = on_device(batch.image if len(good) == len(batch.image) else batch.image[good], codec.engine)
        rows[store.name] = store.of(image, codec).to("cpu", non_blocking=travels)
        if flip:
            rows["flipped"] = store.of(image.flip(-1), codec).to("cpu", non_blocking=travels)
    arrived = None
    if travels:
        arrived = torch.cuda.Event()
        arrived.record()
    return Encoded(target, last, rows, items, len(batch.index), arrived)


def landed(batch: Encoded) -> Rows:
    """The rows of a batch when they have arrived, in memory that may be kept."""
    if batch.arrived is None:
        return batch.rows
    batch.arrived.synchronize()
    return {name: value.clone() for name, value in batch.rows.items()}  # pinned memory is scarce


def one_behind(stream: Iterator[T]) -> Iterator[T]:
    """The same things, each given when the next one has been started: the device never waits for the host."""
    before: list[T] = []
    for each in stream:
        yield from before
        before = [each]
    yield from before


def drawing(target: Target, codec: Codec) -> writer.Draw | None:
    """How latents are drawn for the statistics: from what is stored, with noise that depends on its pictures; None in val."""
    return partial(draw, codec) if target.split == "train" else None


def draw(codec: Codec, stored: Tensor, seed: str) -> Tensor:
    """Moments or codes as stored -> latents [n,c,h,w], not whitened."""
    return codec.draw(stored.to(codec.engine.device), generator(codec.engine.device, "posterior", seed))
