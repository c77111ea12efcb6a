"""A cache of latents on disk, planned and written shard by shard; `latents` reads it.

Each split is a row of safetensors shards, moments [n,m,h,w] or codes [n,h,w] and
labels [n], with a line of items.jsonl beside each row. latents.json comes last
and names files that are never changed afterwards: a shard whose rows change is
written under a new name, then latents.json is replaced, then the old file is
deleted.

The name `features` [n,tokens,width] is reserved for what a frozen encoder says of
each picture. Nothing here computes it and readers pass it over, but rows that are
copied into a new shard keep theirs where all rows of it have some. Whoever adds
it to a shard writes its sha256 into latents.json anew.

What a shard shall hold is planned first, and its header says so by a hash: an
interrupted command that plans the same keeps the shards that are there. Items
that are new stand behind those that were there, so that adding ten pictures
touches one shard of a million's; training draws its own order.
"""

import hashlib
import json
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Self

import safetensors
import torch
from torch import Tensor

from ldmctl import weights
from ldmctl.errors import DataError, MismatchError
from ldmctl.manifest import WIDTHS, Manifest, Shard, Statistics, Sums

ROWS_PER_CRC = 1024
DTYPES = {name: getattr(torch, name) for name in WIDTHS}
AGAIN = "Encode again: ldmctl encode-dataset --overwrite."

Rows = dict[str, Tensor]  # `moments` [n,m,h,w] or `codes` [n,h,w], perhaps `flipped` of the same shape and `features` [n,tokens,width]
Draw = Callable[[Tensor, str], Tensor]  # moments or codes, a seed -> latents [n,c,h,w]


class Item(NamedTuple):
    """What is known of one row."""

    stamp: str
    text: str
    label: int


# -- the plan ----------------------------------------------------------------


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
    """The shards that a split shall have: those that may stay, and those to be written.

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
    parts = [identity, split, draft.source and draft.source.sha256, draft.rows, draft.items, [stamps[index] for index in draft.new]]
    plan = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return Target(f"{split}-{next(numbers):05d}.safetensors", split, draft.source, draft.rows, draft.items, draft.new, plan)


def _number(file: str) -> int:
    found = re.search(r"-(\d+)", file)
    return int(found[1]) if found else -1


# -- writing -----------------------------------------------------------------


def write(folder: Path, target: Target, encoded: Sequence[tuple[Rows, list[Item]]], draw: Draw | None) -> Shard | None:
    """Write a shard and its items, the shard last; None when no picture of it could be read."""
    items = [*target.items, *(item for _, part in encoded for item in part)]
    if not items:
        return None
    parts = [rows for rows, part in encoded if part]
    if target.rows and target.source is not None:
        parts.insert(0, copied(folder, target.source, target.rows))
    shared = [name for name in parts[-1] if all(name in part for part in parts)]  # features of copied rows alone are left behind
    tensors = {name: torch.cat([part[name] for part in parts]) for name in shared}
    tensors["labels"] = torch.tensor([item.label for item in items])
    path = folder / target.file
    lines = (json.dumps({"stamp": item.stamp, "text": item.text}, ensure_ascii=False) + "\n" for item in items)
    weights.write_text(path.with_suffix(".items.jsonl"), "".join(lines))
    weights.save(path, tensors, {"kind": "latents", "split": target.split, "plan": target.plan})
    return describe(path, draw)


def copied(folder: Path, source: Shard, rows: list[int]) -> Rows:
    """Rows of a shard that is as it was written; a damaged one is a MismatchError."""
    if fault := file_fault(folder / source.file, source.sha256):
        raise MismatchError(f"{fault} {AGAIN}")
    tensors, _ = weights.load(folder / source.file)
    return {name: tensors[name][rows] for name in ("moments", "codes", "flipped", "features") if name in tensors}


def describe(path: Path, draw: Draw | None) -> Shard:
    """What the manifest says of a shard, read from the file; with `draw`, also the sums of its latents."""
    tensors, header = weights.load(path)
    stored = tensors["codes" if "codes" in tensors else "moments"]
    tally = Tally()
    if draw is not None:
        for number, rows in enumerate(stored.split(ROWS_PER_CRC)):
            tally.add(draw(rows, f"{header['plan']} {number}"))
    return Shard(
        file=path.name,
        count=len(stored),
        sha256=weights.file_sha256(path),
        crc32=checksums(stored),
        crc32_flipped=checksums(tensors["flipped"]) if "flipped" in tensors else [],
        items_sha256=weights.file_sha256(path.with_suffix(".items.jsonl")),
        sums=tally.sums() if draw is not None else None,
    )


def checksums(rows: Tensor) -> list[int]:
    """CRC-32 of the bytes of each ROWS_PER_CRC rows."""
    return [zlib.crc32(piece.numpy().tobytes()) for piece in rows.split(ROWS_PER_CRC)]


def checked_rows(rows: Rows, items: Sequence[Item]) -> Rows:
    """The same rows; values that do not fit their dtype are a DataError that names the pictures."""
    for value in rows.values():
        if not (finite := value.flatten(1).isfinite().all(1)).all():
            which = [items[row].stamp for row in (~finite).nonzero().flatten().tolist()[:5]]
            raise DataError(
                f"Moments are not finite in {value.dtype} for {which}. Try dtype=float32; if it persists, the autoencoder has diverged."
            )
    return rows


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


# -- what is there -----------------------------------------------------------


def read_items(folder: Path, shard: Shard) -> list[Item]:
    """What is known of each row of a shard; files that do not fit each other are a MismatchError."""
    try:
        lines = (folder / shard.items_file).read_text(encoding="utf-8").split("\n")[:-1]
        with safetensors.safe_open(str(folder / shard.file), framework="pt") as file:
            labels = file.get_tensor("labels").tolist()
        if not len(lines) == len(labels) == shard.count:
            raise ValueError(f"{shard.count:,} items are in the manifest, {len(labels):,} in the shard, {len(lines):,} lines beside it")
        rows = map(json.loads, lines)
        return [Item(row["stamp"], row["text"], label) for row, label in zip(rows, labels, strict=True)]
    except FileNotFoundError as error:
        raise MismatchError(f"{error.filename or folder / shard.file} is missing. {AGAIN}") from None
    except (ValueError, LookupError, TypeError, safetensors.SafetensorError) as error:
        raise MismatchError(f"{folder / shard.file} or {shard.items_file} is damaged ({error}). {AGAIN}") from None


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


def sweep(folder: Path, keep: Sequence[str], *, splits: Sequence[str]) -> None:
    """Delete shards that are not to be kept, each before its items, and what was written half."""
    files = {Path(name).stem for name in keep}
    for split in splits:
        for ending in (".safetensors", ".items.jsonl"):
            for path in folder.glob(f"{split}-[0-9]*{ending}"):
                if path.name.removesuffix(ending) not in files:
                    path.unlink(missing_ok=True)
        for path in folder.glob(f".{split}-[0-9]*.tmp"):
            path.unlink(missing_ok=True)


def faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """A sentence for each file of a cache that is not as it was written."""
    for shards in manifest.splits.values():
        for shard in shards:
            if fault := file_fault(folder / shard.file, shard.sha256) or file_fault(folder / shard.items_file, shard.items_sha256):
                yield fault
                continue
            try:
                read_items(folder, shard)
            except MismatchError as error:
                yield str(error).removesuffix(AGAIN).strip()


def file_fault(path: Path, sha256: str) -> str:
    """Why a file is not what the manifest says; '' when it is, or when no hash was recorded."""
    if not path.exists():
        return f"{path} is missing."
    return f"{path} has changed since it was written." if sha256 and weights.file_sha256(path) != sha256 else ""


def label_counts(items: Sequence[Item], classes: int) -> list[int]:
    """How many items each class has."""
    counted = Counter(item.label for item in items)
    return [counted[index] for index in range(classes)]


# -- statistics --------------------------------------------------------------


class Tally:
    """Mean and deviation of latents, float64, gathered batch by batch and merged by Chan's formula."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.square: Tensor = torch.zeros(())  # sum of squared distances from the mean, per channel

    def add(self, latent: Tensor) -> None:
        """[B,c,h,w], not whitened."""
        values = latent.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
        mean = values.mean(1)
        self._merge(values.shape[1], mean, (values - mean[:, None]).square().sum(1))

    def merge(self, sums: Sums) -> None:
        """Those of other latents."""
        self._merge(sums.count, torch.tensor(sums.mean, dtype=torch.float64), torch.tensor(sums.square, dtype=torch.float64))

    def sums(self) -> Sums:
        """What was gathered so far."""
        return Sums(count=self.count, mean=self.mean.tolist(), square=self.square.tolist())

    def _merge(self, count: int, mean: Tensor, square: Tensor) -> None:
        gap = mean - self.mean
        total = self.count + count
        self.square = self.square + square + gap.square() * (self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total

    def statistics(self, rescale: str) -> Statistics:
        """`channel`: a deviation for each channel; `common`: the same one, their root mean square, for all."""
        variance = self.square / max(self.count, 1)
        if rescale == "common":
            variance = variance.mean().expand_as(variance)
        if not bool((variance > 0).all()) or not bool(variance.isfinite().all()):
            dead = [channel for channel, value in enumerate(variance.tolist()) if not value > 0]
            raise DataError(
                f"Latent channels {dead} are the same for every picture; such latents cannot be whitened. Train the autoencoder longer."
            )
        return Statistics(mean=self.mean.tolist(), deviation=variance.sqrt().tolist())
