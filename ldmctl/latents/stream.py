"""What each training step reads of a cache: a pure function of seed and step."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from ldmctl.config.schemas.shared import Loop
from ldmctl.latents.conditions import NOTHING, Known, Several, chosen_in, on_device
from ldmctl.latents.reader import Latents, T
from ldmctl.latents.resident import Resident
from ldmctl.training.engine import Engine
from ldmctl.training.order import WINDOW, batch_items, generator


class Batch(NamedTuple):
    """What a step reads."""

    items: Tensor  # of the global batch [B], on the CPU
    stored: Tensor  # of the rows that were asked for: moments [b,m,h,w] or codes [b,h,w], in the cache's own dtype, on the device
    labels: Tensor  # of the same rows [b], on the device
    known: dict[str, Known] = {}  # of the same rows, what else is known of them, on the device


def training_latents(
    source: Latents | Resident,
    loop: Loop,
    engine: Engine,
    *,
    rows: slice,
    flip: bool,
    first: int,
    seen: int | None = None,
    several: Several = NOTHING,
) -> Iterator[Batch]:
    """These rows of the global batch of each step from `first` on, half of them mirrored if `flip`; a pure function of seed and step.

    `seen` is how many items the steps before `first` took, where their batch was another; `several` knows more of the items than labels.
    """
    shift = 0 if seen is None else seen - first * loop.batch

    def asked(step: int) -> tuple[Tensor, Tensor | None]:
        items = batch_items(loop.seed, len(source), loop.batch, step, loop.shuffle, shift=shift)
        mirrored = torch.rand(loop.batch, generator=generator("cpu", "mirror", loop.seed, step)) < 0.5 if flip else None
        return items, None if mirrored is None else mirrored[rows]

    def known(step: int, items: Tensor, mirrored: Tensor | None) -> dict[str, Known]:
        return on_device(several.known(items[rows], mirrored, chosen_in(loop, step)[rows]), engine.device) if several.sources else {}

    def resident(step: int) -> Batch:
        items, mirrored = asked(step)
        labels = source.labels[items[rows].to(engine.device, non_blocking=True)]
        return Batch(items, source.stored(items[rows], mirrored), labels, known(step, items, mirrored))

    def mapped(step: int) -> Batch:
        assert isinstance(source, Latents)
        if loop.shuffle == "blocks":
            expect(source, loop, step, first, shift)
        items, mirrored = asked(step)
        pinned, labels = engine.device.type == "cuda", source.labels[items[rows]]
        stored = source.stored(items[rows], mirrored, pinned=pinned)
        return Batch(items, stored, labels.pin_memory() if pinned else labels, known(step, items, mirrored))

    steps = range(first, loop.steps)
    if isinstance(source, Resident):
        yield from map(resident, steps)
        return
    # On a CPU in place: a step is thousands of times as long, and a second thread of torch makes OpenMP put the first one's helpers to sleep.
    for batch in map(mapped, steps) if engine.device.type == "cpu" else ahead(mapped, steps):
        stored, labels = (part.to(engine.device, non_blocking=True) for part in (batch.stored, batch.labels))
        yield batch._replace(stored=stored, labels=labels)


def expect(latents: Latents, loop: Loop, step: int, first: int, shift: int = 0) -> None:
    """In the step that enters a WINDOW, have the next one read while this one is learned from."""
    window = (step * loop.batch + shift) // WINDOW
    if step == first:
        latents.expect(batch_items(loop.seed, len(latents), WINDOW, window, loop.shuffle))
    if step == first or window != ((step - 1) * loop.batch + shift) // WINDOW:
        latents.expect(batch_items(loop.seed, len(latents), WINDOW, window + 1, loop.shuffle))


def ahead(read: Callable[[int], T], steps: Iterable[int], depth: int = 2) -> Iterator[T]:
    """`read(step)` for each step in order; a thread reads `depth` of them before they are asked for. Its errors are raised here."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, "latents") as pool:
        try:
            for step in steps:
                waiting.append(pool.submit(read, step))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
