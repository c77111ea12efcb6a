"""Large blocks that a computation on a CPU lets go of, given back to the system at once.

glibc takes a block that is larger than a threshold from the system directly, and raises the threshold, up to 32 MiB, to the largest
block that was let go of. What is smaller is cut from a heap whose gaps it keeps: a loop over maps of many sizes then holds several
times what is alive, another multiple each time it runs.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM, MMAP = -1, -3  # of glibc's mallopt
LARGE = 2**18  # bytes: a map of a tile is larger
GROWN = 2**25  # where glibc's own threshold ends once large blocks have been let go of


@contextmanager
def returning_large_blocks(device: torch.device) -> Iterator[None]:
    """Within it, blocks of 256 KiB and more come from the system and go back to it; afterwards they are kept for use again, which is faster.

    It holds for the whole process. On an accelerator, and without glibc, nothing happens.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None) if device.type == "cpu" and sys.platform == "linux" else None
    if option is None:
        yield
        return
    option(MMAP, LARGE)
    try:
        yield
    finally:
        option(MMAP, GROWN)
        option(TRIM, 2 * GROWN)
