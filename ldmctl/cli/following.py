"""A process that ends when the one that started it has ended, however that was: killed, crashed, its terminal closed."""

import os
import signal
import sys
import threading
import time

LOOK = 0.5  # seconds between two looks
GRACE = 30.0  # seconds for saving; torchrun gives its workers as many


def follow(parent: int) -> None:
    """From now on this process is asked to stop (SIGTERM) when `parent` is gone, and ends `GRACE` seconds later at the latest."""
    if sys.platform == "linux":
        _ask_kernel()
    threading.Thread(target=_watch, args=(parent,), name="follow", daemon=True).start()


def _ask_kernel() -> None:
    """The kernel sends the signal at once, where the C library knows how."""
    import ctypes

    try:
        ctypes.CDLL(None, use_errno=True).prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
