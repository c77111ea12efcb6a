"""Work that one thread does beside the one that encodes."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self


class Background:
    """Work done in order by one thread beside this one, at most `waiting` pieces at a time; an error there is raised here.

    `waiting` 0 has it done at once, in this thread: where the CPU encodes, a second thread of torch makes OpenMP put the first
    one's helpers to sleep, and they would encode at a third of the speed ever after.
    """

    def __init__(self, waiting: int = 2):
        self.waiting = waiting
        self.pool = ThreadPoolExecutor(1)
        self.under_way: deque[Future] = deque()
        self.done: list[Any] = []

    def put(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Do work(*arguments) as soon as what was put before is done; waits where too much is waiting."""
        if not self.waiting:
            self.done.append(work(*arguments))
            return
        while len(self.under_way) >= self.waiting:
            self.done.append(self.under_way.popleft().result())
        self.under_way.append(self.pool.submit(work, *arguments))

    def results(self) -> list[Any]:
        """What each piece of work gave, in order, when all are done."""
        while self.under_way:
            self.done.append(self.under_way.popleft().result())
        return self.done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True)
