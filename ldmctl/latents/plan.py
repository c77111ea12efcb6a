"""Which shards a split will have: those that may stay, and those to be written.

What a shard will hold is planned first, and its header says so by a hash: an
interrupted command that plans the same keeps the shards that are there. Items
that are new stand behind those that were there, so that adding ten pictures
touches one shard of a million's; training draws its own order.
"""

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

from ldmctl.config.mapped import opened
from ldmctl.errors import MismatchError
from ldmctl.latents.items import Item, read_items
from ldmctl.latents.manifest import Shard, Sums
from ldmctl.storage import weights


@dataclass(frozen=True)
class Target:
    """A shard to be written: rows of the one that it replaces, then pictures to encode."""

    file: str
    split: str
    source: Shard | None  # that it replaces
    rows: list[int]  # of the source
    items: list[Item]  # of these rows, as they are described now
    new: list[int]  # pictures, by index
    plan: str  # hash of all this and of what is encoded how

    @property
    def summed(self) -> Sums | None:
        """The sums of its first rows, where these are all those of its source and so need not be drawn again."""
        return self.source.sums if self.source is not None and self.rows == list(range(self.source.count)) else None

    def chunks(self, size: int) -> list[list[int]]:
        """The new pictures, `size` at a time."""
        return [self.new[first : first + size] for first in range(0, len(self.new), size)]


class Draft(NamedTuple):
    """A target in the making."""

    source: Shard | None
    before: list[Item]
    rows: list[int]
    items: list[Item]
    new: list[int]


def plan_split(
    split: str,
    stamps: Sequence[str],
    note: Callable[[int], Item],
    stored: Sequence[tuple[Shard, list[Item]]],
    *,
    size: int,
    identity: str,
    leave: Sequence[str] = (),
    content: Callable[[int], str] = lambda index: "",
    damaged: Collection[str] = (),
) -> list[Shard | Target]:
    """The shards that a split will have: those that may stay, and those to be written.

    `stamps` are those of the pictures, `note` says what is known of one of them now,
    `stored` are the shards there are. A shard has up to `size` pictures. `identity`
    stands for all that decides latents. Pictures with a stamp in `leave` are left out.

    A picture whose stamp is new is known by its `content`. The pictures of `damaged` shards are encoded again in their place;
    where its items are lost too, those are taken that are nowhere else, in order.
    """
    waiting: dict[str, deque[int]] = {}
    for index, stamp in enumerate(stamps):
        waiting.setdefault(stamp, deque()).append(index)
    rows = [[waiting[item.stamp].popleft() if waiting.get(item.stamp) else None for item in before] for _, before in stored]
    find_by_content(rows, stored, waiting, stamps, content)
    drafts = []
    for (shard, before), found in zip(stored, rows, strict=True):
        kept = [(row, index) for row, index in enumerate(found) if index is not None]
        if shard.file in damaged:
            drafts.append(Draft(None, [], [], [], [index for _, index in kept]))
            continue
        now = [note(index)._replace(content=before[row].content) for row, index in kept]
        drafts.append(Draft(shard, before, [row for row, _ in kept], now, []))
    for stamp in leave:
        if waiting.get(stamp):
            waiting[stamp].popleft()
    new = sorted(index for indices in waiting.values() for index in indices)
    for (shard, before), draft in zip(stored, drafts, strict=True):
        if shard.file in damaged and not before:
            draft.new.extend(new[: shard.count])
            new = new[shard.count :]
    room = max(0, size - len(drafts[-1].rows) - len(drafts[-1].new)) if drafts else 0
    if drafts:
        drafts[-1].new.extend(new[:room])
    drafts += [Draft(None, [], [], [], new[first : first + size]) for first in range(room, len(new), size)]
    numbers = count(1 + max((_number(shard.file) for shard, _ in stored), default=-1))
    return [planned for draft in drafts if (planned := _planned(draft, split, stamps, identity, numbers)) is not None]


def find_by_content(
    rows: Sequence[list[int | None]],
    stored: Sequence[tuple[Shard, list[Item]]],
    waiting: Mapping[str, deque[int]],
    stamps: Sequence[str],
    content: Callable[[int], str],
) -> None:
    """Fill the rows that no stamp was found for with pictures of the same content, and take these from those that are waiting.

    Only pictures that would be encoded are read, and none where no row is missing.
    """
    lost: dict[str, deque[tuple[int, int]]] = {}
    for number, (_, before) in enumerate(stored):
        for row, item in enumerate(before):
            if rows[number][row] is None and item.content:
                lost.setdefault(item.content, deque()).append((number, row))
    for index in sorted(index for indices in waiting.values() for index in indices) if lost else ():
        if place := lost.get(content(index)):
            number, row = place.popleft()
            rows[number][row] = index
            waiting[stamps[index]].remove(index)


def _planned(draft: Draft, split: str, stamps: Sequence[str], identity: str, numbers: Iterator[int]) -> Shard | Target | None:
    """The shard itself where nothing of it changes, None where nothing of it is left."""
    if draft.source is not None and not draft.new and draft.items == draft.before:
        return draft.source
    if not draft.rows and not draft.new:
        return None
    parts = [
        identity,
        split,
        draft.source and draft.source.sha256,
        draft.rows,
        [item.plain for item in draft.items],
        [stamps[index] for index in draft.new],
    ]
    plan = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return Target(f"{split}-{next(numbers):05d}.safetensors", split, draft.source, draft.rows, draft.items, draft.new, plan)


def _number(file: str) -> int:
    found = re.search(r"-(\d+)", file)
    return int(found[1]) if found else -1


def is_finished(folder: Path, target: Target, stamps: Sequence[str], note: Callable[[int], Item]) -> bool:
    """Whether an earlier command wrote this very shard, and its new pictures are still described as they were."""
    path = folder / target.file
    try:
        if weights.read_header(path).get("plan") != target.plan:
            return False
        with opened(path) as file:
            rows = file.get_slice("labels").get_shape()[0]
        items = read_items(folder, Shard(file=target.file, count=rows, sha256="", crc32=[]))
    except MismatchError:
        return False
    asked = iter(target.new)
    return items[: len(target.items)] == target.items and all(
        any(stamps[index] == item.stamp and note(index) == item._replace(content="") for index in asked)
        for item in items[len(target.items) :]
    )
