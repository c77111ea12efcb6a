"""Signals that ask a long command to stop: the first is heeded after the step, a second Ctrl-C at once.

SIGHUP says that the terminal was closed or its connection lost; where it is ignored, as under nohup, it stays ignored.
"""

import signal
import threading
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")


def asking() -> list[signal.Signals]:
    """The signals of this system that ask to stop, without a SIGHUP that is ignored."""
    known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    return [each for each in known if each.name != "SIGHUP" or signal.getsignal(each) is not signal.SIG_IGN]


class Signals:
    """A context in which `asked` becomes true at the first signal. A second SIGINT raises KeyboardInterrupt."""

    def __init__(self, say: Any = None):
        self.asked = False
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # elsewhere someone else handles signals
            for each in asking():
                if (before := signal.getsignal(each)) is not None:  # None is a handler of other software, which could not be put back
                    self._before[each] = before
                    signal.signal(each, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.asked = not self.asked, True
        if first and self._say is not None:
            self._say(f"{signal.Signals(number).name} received: finishing this step and saving (Ctrl-C again stops at once).")
