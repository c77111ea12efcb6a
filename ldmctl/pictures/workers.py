"""Batches decoded ahead by worker processes, the same ones whatever their number."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader, get_worker_info

from ldmctl.pictures.batches import Batch, Order, Pictures

STOPS = (signal.SIGINT, signal.SIGTERM)
ADDRESSED = hasattr(signal, "sigwaitinfo")  # whether a process can know who sent it a signal; not on macOS


def batches(pictures: Pictures, order: Order, *, seeds: Callable[[int], int] | None = None, workers: int = 0) -> Iterator[Batch]:
    """One Batch for each list of (position, index), in order; crop and flip drawn from seeds(position), or none.

    `workers` processes decode ahead; without any, prepared pictures are kept in memory if they fit.
    """
    wanted = ([(index, None if seeds is None else seeds(position)) for position, index in pairs] for pairs in order)
    yield from map(pictures.checked, _ahead(pictures, wanted, workers) if workers else map(pictures.assemble, wanted))


class _Whole:
    """What a worker holds: it is asked for whole batches."""

    def __init__(self, pictures: Pictures):
        self.pictures = pictures

    def __getitem__(self, wanted: list[tuple[int, int | None]]) -> Batch:
        return self.pictures.assemble(wanted)


def _ahead(pictures: Pictures, wanted: Iterable[list[tuple[int, int | None]]], workers: int) -> Iterator[Batch]:
    loader: Any = DataLoader(
        _Whole(pictures),  # type: ignore[arg-type]
        batch_size=None,
        sampler=wanted,
        num_workers=workers,
        collate_fn=_as_it_is,  # type: ignore[arg-type]
        worker_init_fn=_settle,
        generator=Generator(),  # otherwise a base seed is drawn from the global generator
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS) if ADDRESSED else None  # until each worker has settled
    try:
        ready = iter(loader)
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    yield from ready


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _settle(_: int) -> None:
    """What a worker does first. Ctrl-C and a batch system's SIGTERM reach every process: only the main one answers."""
    info: Any = get_worker_info()
    info.dataset.pictures.fits = False  # the set fits once, not once per worker; what a fork brought along is still used
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if ADDRESSED:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    """End the worker on the main process's SIGTERM, and on nobody else's."""
    main: Any = multiprocessing.parent_process()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)
