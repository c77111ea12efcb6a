"""A dataset under real worker processes: each gives the same items as the process that made it."""

import os
import stat
from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from ldmctl.pictures import images
from ldmctl.protocols import Example
from ldmctl.testing.promises import calling, expect

WORKERS = max(2, min(4, os.cpu_count() or 1))
ROUNDS = 32  # readings of each worker at least, so that two of them read at the same time
ONCE = "open files anew in each process (protocols.py shows how)"


class _Bytes:
    """What a worker is asked for: the pixels of an item, as bytes."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[bytes, int, str]:
        return content(self.dataset[index])


def content(item: Example) -> tuple[bytes, int, str]:
    """Pixels, label and caption of an item, to be compared."""
    return images.to_tensor(images.load(item.picture, channels=3)).numpy().tobytes(), item.label, item.text


def check_workers(dataset: Any, before: dict[int, int]) -> None:
    """Items read in several processes at once are those read here; `before` is what `open_files` gave before the dataset was made."""
    count = min(len(dataset), 64)
    here = [content(dataset[index]) for index in reversed(range(count))][
        ::-1
    ]  # ends with the first, and workers with the last: places differ
    opened = {number: place for number, place in open_files().items() if number not in before}
    try:
        there = _read(dataset, [index for _ in range(-(-WORKERS * ROUNDS // count)) for index in range(count)])
    except Exception as error:  # a shared place is the likelier reason, and the clearer one: it is told first
        failed: Exception | None = error
    else:
        failed = None
    moved = [number for number, place in open_files().items() if opened.get(number, place) != place]
    expect(not moved, f"worker processes read the file that this process has open ({', '.join(map(_path, moved))}); {ONCE}")
    with calling("reading in worker processes"):
        if failed is not None:
            raise failed
    wrong = sorted({index for index, found in there if found != here[index]})
    expect(not wrong, f"{len(wrong)} of {count} items are others in worker processes, item {wrong[:1]} first; {ONCE}")


def _read(dataset: Any, indices: Sequence[int]) -> list[tuple[int, tuple[bytes, int, str]]]:
    loader: Any = DataLoader(_Bytes(dataset), batch_size=None, sampler=indices, num_workers=WORKERS, collate_fn=_as_it_is)  # type: ignore[arg-type]
    return list(zip(indices, loader, strict=True))


def _as_it_is(item: Any) -> Any:
    return item


def open_files() -> dict[int, int]:
    """The place where each open file is read next, by its number; none where the system does not list them."""
    places = {}
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            if stat.S_ISREG(os.fstat(int(name)).st_mode):
                places[int(name)] = os.lseek(int(name), 0, os.SEEK_CUR)
        except OSError:  # the listing's own
            continue
    return places


def _path(number: int) -> str:
    return os.readlink(f"/proc/self/fd/{number}")
