"""Batches decoded ahead by worker processes, the same ones whatever their number."""

import multiprocessing
import os
import signal
import stat
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from torch import Generator
from torch.utils.data import DataLoader, get_worker_info

from ldmctl.attribution import attributed
from ldmctl.endings import DECODER_GONE, is_decoder_gone
from ldmctl.errors import LdmctlError, MemoryShortage
from ldmctl.pictures.batches import Batch, Order, Pictures

IGNORED = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
STOPS = (*IGNORED, signal.SIGTERM)
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

    def __getitem__(self, wanted: list[tuple[int, int | None]]) -> "Batch | Refusal":
        try:
            return self.pictures.assemble(wanted)
        except (Exception, SystemExit) as error:
            said = attributed(error)
            if not isinstance(said, LdmctlError):
                raise
            return Refusal(type(said), str(said), "".join(traceback.format_exception(error)))


class Refusal(NamedTuple):
    """An error with a sentence for the person, sent from a worker: exceptions of plugins may not survive the way as they are."""

    kind: type[LdmctlError]
    sentence: str
    frames: str

    def again(self) -> LdmctlError:
        """The error, with the worker's frames as its cause."""
        error = self.kind(self.sentence)
        error.__cause__ = RuntimeError(f"in a worker process:\n{self.frames}")
        return error


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
    try:
        for batch in ready:
            if isinstance(batch, Refusal):
                raise batch.again()
            yield batch
    except RuntimeError as error:
        if not is_decoder_gone(error):
            raise
        raise MemoryShortage(DECODER_GONE) from None


def _as_it_is(batch: Batch | Refusal) -> Batch | Refusal:
    return batch


def _settle(_: int) -> None:
    """What a worker does first. Ctrl-C, a closed terminal and a batch system's SIGTERM reach every process: only the main one answers."""
    info: Any = get_worker_info()
    info.dataset.pictures.fits = False  # the set fits once, not once per worker; what a fork brought along is still used
    open_again()
    for each in IGNORED:
        signal.signal(each, signal.SIG_IGN)
    if ADDRESSED:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        threading.Thread(target=_end_when_told, daemon=True).start()


def open_again() -> None:
    """Give this process a place of its own in each file that it inherited open for reading, such as a data set's archive.

    A fork shares the place where the next byte is read with all workers, which move it under each other. Where the system lists
    open files (Linux); elsewhere workers are not forked.
    """
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):
        return
    import fcntl

    for name in os.listdir(folder):
        with suppress(OSError):  # the listing's own, a file that may no longer be opened
            number = int(name)
            reads_only = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            if number > 2 and reads_only and stat.S_ISREG(os.fstat(number).st_mode):
                flags = os.O_RDONLY | (os.O_CLOEXEC if not os.get_inheritable(number) else 0)
                own = os.open(f"{folder}/{name}", flags)
                os.lseek(own, os.lseek(number, 0, os.SEEK_CUR), os.SEEK_SET)
                os.dup2(own, number, inheritable=os.get_inheritable(number))
                os.close(own)


def _end_when_told() -> None:
    """End the worker on the main process's SIGTERM, and on nobody else's."""
    main: Any = multiprocessing.parent_process()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)
