"""What was noticed of a data set while its pictures were prepared, for one sentence each at the end."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ldmctl.pictures.pillow import Facts

SEEN, ENLARGED, UNUSED = 1, 2, 4  # one bit each in the mark of a picture


class Noticed(NamedTuple):
    """What can be sent from one process to another and put together."""

    marks: bytes  # one of each picture
    least: tuple[int, int] | None  # width and height of the smallest that was enlarged
    why: str  # why the first profile could not be applied

    def having(self, bit: int) -> int:
        """How many pictures have this bit."""
        return int(np.count_nonzero(np.frombuffer(self.marks, np.uint8) & bit))


class Tally:
    """Each picture counts once, however often it is seen."""

    def __init__(self, count: int, size: int):
        self.size, self.seen = size, 0
        self._marks, self._why = bytearray(count), ""
        self._least: tuple[int, int] | None = None

    def add(self, index: int, facts: Facts) -> None:
        """Take note of one picture."""
        if self._marks[index]:
            return
        small, unused = min(facts.size) < self.size, bool(facts.profile)
        self._marks[index] = SEEN | ENLARGED * small | UNUSED * unused
        self.seen += 1
        if small and (self._least is None or min(facts.size) < min(self._least)):
            self._least = facts.size
        self._why = self._why or facts.profile

    @property
    def noticed(self) -> Noticed:
        """All of it so far."""
        return Noticed(bytes(self._marks), self._least, self._why)


def together(parts: Sequence[Noticed]) -> Noticed:
    """The same of one split as several ranks saw it."""
    marks = np.bitwise_or.reduce([np.frombuffer(part.marks, np.uint8) for part in parts])
    return Noticed(marks.tobytes(), _least(parts), next((part.why for part in parts if part.why), ""))


def remarks(splits: Sequence[Noticed], size: int) -> list[str]:
    """The sentences on a set of several splits: how many pictures were enlarged, and how many profiles could not be applied."""
    seen, enlarged, unused = (sum(split.having(bit) for split in splits) for bit in (SEEN, ENLARGED, UNUSED))
    of = f"{seen:,} picture{'s' * (seen != 1)}{' seen' * (seen < sum(len(split.marks) for split in splits))}"
    out = []
    if enlarged:
        least = "x".join(map(str, _least(splits) or ()))
        verb = "is smaller than {0} pixels and was" if enlarged == 1 else "are smaller than {0} pixels and were"
        out.append(
            f"{enlarged:,} of {of} {verb.format(size)} enlarged; the smallest is {least}. "
            "To leave small ones out, set image.smallest; to train on fewer pixels, image.size."
        )
    if unused:
        verb = "has a colour profile" if unused == 1 else "have colour profiles"
        why = next(split.why for split in splits if split.why)
        out.append(f"{unused:,} of {of} {verb} that could not be applied ({why}): the colours were taken as sRGB.")
    return out


def _least(parts: Sequence[Noticed]) -> tuple[int, int] | None:
    return min((part.least for part in parts if part.least is not None), key=min, default=None)
