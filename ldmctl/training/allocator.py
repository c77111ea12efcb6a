"""What the C library does with memory that a computation on a CPU lets go of: give it back to the system at once, or keep it.

glibc takes a block that is larger than a threshold from the system directly, and raises the threshold, up to 32 MiB, to the largest
block that was let go of. What is smaller is cut from a heap whose gaps it keeps: a loop over maps of many sizes then holds several
times what is alive, another multiple each time it runs. What is free at the heap's end goes back above another threshold, so that a
training step, or a batch that is encoded, lets go of all its maps and has them zeroed by the system again and again.

All of it holds for the whole process. On an accelerator, and without glibc, nothing happens.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

TRIM, MMAP = -1, -3  # of glibc's mallopt
LARGE = 2**18  # bytes: a map of a tile is larger
GROWN = 2**25  # where glibc's own threshold ends once large blocks have been let go of
KEPT = 2**30  # free bytes at the heap's end that are not given back


def keep_blocks(device: torch.device) -> None:
    """From now on blocks of less than 32 MiB, up to 1 GiB that is free, are kept for use again: steps of training and batches to encode take the same ones."""
    if option := _option(device):
        option(MMAP, GROWN)
        option(TRIM, KEPT)


@contextmanager
def returning_blocks(device: torch.device) -> Iterator[None]:
    """Within it, blocks of 256 KiB and more come from the system and go back to it; afterwards they are kept."""
    if option := _option(device):
        option(MMAP, LARGE)
    try:
        yield
    finally:
        keep_blocks(device)


def _option(device: torch.device) -> Callable[[int, int], int] | None:
    if device.type != "cpu" or sys.platform != "linux":
        return None
    found: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    return found
