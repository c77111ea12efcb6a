"""A cache of latents on disk, planned and written shard by shard; `latents` reads it.

Each split is a row of safetensors shards, moments [n,m,h,w] or codes [n,h,w] and
labels [n], with a line of items.jsonl beside each row. latents.json comes last
and names files that are never changed afterwards: a shard whose rows change is
written under a new name, then latents.json is replaced, then the old file is
deleted.

The name `features` [n,tokens,width] is reserved for what a frozen encoder says of
each picture. Nothing here computes it and readers pass it over, but rows that are
copied into a new shard keep theirs where all rows of it have some. Whoever adds
it to a shard writes its sha256 into latents.json again.

What a shard will hold is planned first, and its header says so by a hash: an
interrupted command that plans the same keeps the shards that are there. Items
that are new stand behind those that were there, so that adding ten pictures
touches one shard of a million's; training draws its own order.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ldmctl.errors import DataError, MismatchError
from ldmctl.latents.integrity import file_fault
from ldmctl.latents.items import AGAIN, Item, read_lines, write_items
from ldmctl.latents.manifest import WIDTHS, Shard
from ldmctl.latents.plan import Target
from ldmctl.latents.statistics import RunningStatistics
from ldmctl.storage import weights

ROWS_PER_CRC = 1024
DRAWN_ALONE = 4096  # in a shard of up to so many rows each has noise of its own for the statistics, whatever lies beside it
DTYPES = {name: getattr(torch, name) for name in WIDTHS}

Rows = dict[str, Tensor]  # `moments` [n,m,h,w] or `codes` [n,h,w], perhaps `flipped` of the same shape and `features` [n,tokens,width]
Draw = Callable[[Tensor, str], Tensor]  # moments or codes, a seed -> latents [n,c,h,w]


# -- the plan ----------------------------------------------------------------


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
    write_items(path.with_suffix(".items.jsonl"), items)
    weights.save(path, tensors, {"kind": "latents", "split": target.split, "plan": target.plan})
    return describe(path, draw, target)


def copied(folder: Path, source: Shard, rows: list[int]) -> Rows:
    """Rows of a shard that is as it was written; a damaged one is a MismatchError."""
    if fault := file_fault(folder / source.file, source.sha256):
        raise MismatchError(f"{fault} {AGAIN}")
    tensors, _ = weights.load(folder / source.file)
    return {name: tensors[name][rows] for name in ("moments", "codes", "flipped", "features") if name in tensors}


def describe(path: Path, draw: Draw | None, target: Target) -> Shard:
    """What the manifest says of a shard, read from the file; with `draw`, also the sums of its latents.

    What is drawn depends on the pictures alone, so that statistics do not move with captions or with where the pictures lie.
    """
    tensors, _ = weights.load(path)
    stored = tensors["codes" if "codes" in tensors else "moments"]
    running = RunningStatistics()
    if draw is not None:
        known = target.summed
        if known is not None:
            running.merge(known)
        rest = stored[0 if known is None else len(target.rows) :]
        names = [item.identity for item in read_lines(path.with_suffix(".items.jsonl"))][len(stored) - len(rest) :]
        together = 1 if len(stored) <= DRAWN_ALONE else ROWS_PER_CRC
        for first in range(0, len(rest), together):
            here = slice(first, first + together)
            running.add(draw(rest[here], hashlib.sha256(json.dumps(names[here]).encode()).hexdigest()))
    return Shard(
        file=path.name,
        count=len(stored),
        sha256=weights.file_sha256(path),
        crc32=checksums(stored),
        crc32_flipped=checksums(tensors["flipped"]) if "flipped" in tensors else [],
        items_sha256=weights.file_sha256(path.with_suffix(".items.jsonl")),
        sums=running.sums() if draw is not None else None,
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


# -- what is there -----------------------------------------------------------


def shards_of(folder: Path, splits: Sequence[str]) -> set[str]:
    """The names of all shards that lie in a folder."""
    return {path.name for split in splits for path in folder.glob(f"{split}-[0-9]*.safetensors")}


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


# -- statistics --------------------------------------------------------------
