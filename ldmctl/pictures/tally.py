"""What was noticed of a data set while its pictures were prepared, for one sentence each at the end."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ldmctl.pictures.images import Facts


class Noticed(NamedTuple):
    """What can be sent from one process to another and put together."""

    seen: int
    enlarged: int
    least: tuple[int, int] | None  # width and height of the smallest that was enlarged
    unused: int  # profiles that could not be applied
    why: str  # the first reason


class Tally:
    """Each picture counts once, however often it is seen."""

    def __init__(self, count: int, size: int):
        self.size = size
        self._marks = bytearray(count)
        self.noticed = Noticed(0, 0, None, 0, "")

    def add(self, index: int, facts: Facts) -> None:
        """Take note of one picture."""
        if self._marks[index]:
            return
        seen, enlarged, least, unused, why = self.noticed
        small, unfit = min(facts.size) < self.size, bool(facts.profile)
        self._marks[index] = 1
        if small and (least is None or min(facts.size) < min(least)):
            least = facts.size
        self.noticed = Noticed(seen + 1, enlarged + small, least, unused + unfit, why or facts.profile)


def together(parts: Iterable[Noticed]) -> Noticed:
    """The same of several ranks that have seen different pictures."""
    rows = list(parts)
    least = min((row.least for row in rows if row.least is not None), key=min, default=None)
    why = next((row.why for row in rows if row.why), "")
    return Noticed(sum(row.seen for row in rows), sum(row.enlarged for row in rows), least, sum(row.unused for row in rows), why)


def remarks(splits: Mapping[str, Noticed], size: int) -> list[str]:
    """The sentences: how many pictures were enlarged, and how many profiles could not be applied."""
    all_of_them, out = together(splits.values()), []
    seen = f"{all_of_them.seen:,} picture{'s' * (all_of_them.seen != 1)}"
    if all_of_them.enlarged:
        least = "x".join(map(str, all_of_them.least or ()))
        verb = "is smaller than {0} pixels and was" if all_of_them.enlarged == 1 else "are smaller than {0} pixels and were"
        out.append(
            f"{all_of_them.enlarged:,} of {seen} {verb.format(size)} enlarged; the smallest is {least}. "
            "To leave small ones out, set image.smallest; to train on fewer pixels, image.size."
        )
    if all_of_them.unused:
        verb = "has a colour profile" if all_of_them.unused == 1 else "have colour profiles"
        out.append(
            f"{all_of_them.unused:,} of {seen} {verb} that could not be applied ({all_of_them.why}): the colours were taken as sRGB."
        )
    return out
