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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import safetensors

from ldmctl.errors import MismatchError
from ldmctl.latents.items import Item, read_items
from ldmctl.latents.manifest import Shard
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
) -> list[Shard | Target]:
    """The shards that a split will have: those that may stay, and those to be written.

    `stamps` are those of the pictures, `note` says what is known of one of them now,
    `stored` are the shards there are. A shard has up to `size` pictures. `identity`
    stands for all that decides latents. Pictures with a stamp in `leave` are left out.
    """
    waiting: dict[str, deque[int]] = {}
    for index, stamp in enumerate(stamps):
        waiting.setdefault(stamp, deque()).append(index)
    drafts = []
    for shard, before in stored:
        kept = [(row, waiting[item.stamp].popleft()) for row, item in enumerate(before) if waiting.get(item.stamp)]
        drafts.append(Draft(shard, before, [row for row, _ in kept], [note(index) for _, index in kept], []))
    for stamp in leave:
        if waiting.get(stamp):
            waiting[stamp].popleft()
    new = sorted(index for indices in waiting.values() for index in indices)
    room = max(0, size - len(drafts[-1].rows)) if drafts else 0
    if drafts:
        drafts[-1].new.extend(new[:room])
    drafts += [Draft(None, [], [], [], new[first : first + size]) for first in range(room, len(new), size)]
    numbers = count(1 + max((_number(shard.file) for shard, _ in stored), default=-1))
    return [planned for draft in drafts if (planned := _planned(draft, split, stamps, identity, numbers)) is not None]


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
        with safetensors.safe_open(str(path), framework="pt") as file:
            rows = file.get_slice("labels").get_shape()[0]
        items = read_items(folder, Shard(file=target.file, count=rows, sha256="", crc32=[]))
    except MismatchError:
        return False
    asked = iter(target.new)
    return items[: len(target.items)] == target.items and all(
        any(stamps[index] == item.stamp and note(index) == item for index in asked) for item in items[len(target.items) :]
    )
