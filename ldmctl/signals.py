"""Signals that ask a long command to stop: the first is heeded after the step, a second Ctrl-C at once."""

import signal
from types import FrameType
from typing import Any

ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Signals:
    """A context in which `asked` becomes true at the first signal. A second SIGINT raises KeyboardInterrupt."""

    def __init__(self, say: Any = None):
        self.asked = False
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        try:
            self._before = {each: signal.signal(each, self._heard) for each in ASKING}
        except ValueError:  # not the main thread: someone else handles signals
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        if self._say is not None:
            self._say(f"{signal.Signals(number).name} received: finishing this step and saving (Ctrl-C again stops at once).")
