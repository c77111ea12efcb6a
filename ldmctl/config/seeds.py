"""Seeds as a person writes them, `0-63,100`: numbers and ranges, held as ranges, so that millions of them take no room."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, pairwise

SHAPE = "numbers and ranges, such as 0-63,100"


@dataclass(frozen=True)
class Seeds:
    """Seeds in the order in which they were named, none of them twice."""

    ranges: tuple[range, ...]

    def __len__(self) -> int:
        return self._ends[-1] if self.ranges else 0

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.ranges)

    def __contains__(self, seed: object) -> bool:
        return any(seed in each for each in self.ranges)

    def __getitem__(self, position: int) -> int:
        """The seed at a place, counted from 0."""
        if not 0 <= position < len(self):
            raise IndexError(position)
        which = bisect_right(self._ends, position)
        return self.ranges[which][position - (self._ends[which - 1] if which else 0)]

    def __str__(self) -> str:
        return ",".join(f"{each[0]}-{each[-1]}" if len(each) > 1 else f"{each[0]}" for each in self.ranges)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self.ranges)))


def parse_seeds(text: str) -> Seeds:
    """The seeds that `0-63,100` names; a ValueError says what is wrong with any other text."""
    seeds = Seeds(tuple(_range(part.strip(), text) for part in text.split(",")))
    by_start = sorted(seeds.ranges, key=lambda each: each.start)
    for one, other in pairwise(by_start):
        if other.start < one.stop:
            raise ValueError(f"{text!r} names seed {other.start} twice; each seed makes one picture")
    return seeds


def _range(part: str, text: str) -> range:
    found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
    if found is None:
        raise ValueError(f"{part!r} in {text!r} is no seed; write {SHAPE}" if part != text else f"{text!r} names no seeds; write {SHAPE}")
    first = int(found[1])
    last = int(found[2] or first)
    if last < first:
        raise ValueError(f"{part!r} goes backwards; write {last}-{first}")
    return range(first, last + 1)
