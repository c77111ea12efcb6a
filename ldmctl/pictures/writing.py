"""Pictures written in threads of their own, so that the device need not wait until one is compressed."""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from ldmctl.pictures.png import write_png

THREADS = min(4, os.cpu_count() or 1)
WAITING = 64  # pictures that may wait to be written, so that they never fill the memory


class Writing:
    """A context in which `write` returns before the file is there; what failed is raised by a later `write` or by `finish`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ldmctl-png")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)

    def write(self, path: Path, picture: Tensor, text: dict[str, str]) -> None:
        """Write uint8 [C,H,W] with text entries, soon."""
        self._waiting.append(self._pool.submit(write_png, path, picture, text))
        while len(self._waiting) > WAITING:
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all of it is on disk."""
        while self._waiting:
            self._waiting.popleft().result()
