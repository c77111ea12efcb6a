"""A cache of latents on disk, read back through memory maps; `shards` wrote it.

Opening reads headers and labels only. What is larger than VERIFIED is checked
block by block, each block once, before its first row is used. For training,
`training_latents` gives each step its rows, read ahead by a thread where the
disk may be waited for, or from the accelerator's memory where all of them fit.
"""

import os
import zlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ldmctl.errors import MismatchError
from ldmctl.latents.items import AGAIN, lines_of
from ldmctl.latents.manifest import Manifest, Shard
from ldmctl.latents.mapping import Part, _checksums, _map
from ldmctl.latents.writer import DTYPES, ROWS_PER_CRC
from ldmctl.storage import weights
from ldmctl.training.order import BLOCK

VERIFIED = 64 << 20  # caches up to this many bytes are hashed whole when they are opened: a tenth of a second
T = TypeVar("T")


class Latents:
    """One split of a cache, mapped into memory: opening it costs the same for a thousand items and for a million.

    Item i lies at place i, and its mirrored variant at place len + i.
    """

    def __init__(self, folder: Path, manifest: Manifest, split: str):
        self.folder, self.manifest, self.split = folder, manifest, split
        self.shards = manifest.splits.get(split, [])
        tensors = [_map(folder / shard.file, shard, manifest) for shard in self.shards]
        variants = [manifest.store, "flipped"] if manifest.flipped else [manifest.store]
        self.parts = [
            Part(shard, variant, *each[variant], _checksums(folder, shard, variant))
            for variant in variants
            for shard, each in zip(self.shards, tensors, strict=True)
        ]
        self.labels = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(each["labels"][0].view(np.int64) for each in tensors)]))
        self.starts = np.cumsum([0, *(len(part.rows) for part in self.parts)])
        self.blocks = np.cumsum([0, *(-(-len(part.rows) // ROWS_PER_CRC) for part in self.parts)])
        self.checked = np.zeros(self.blocks[-1], bool)
        self.dtype = DTYPES[manifest.dtype]

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, items: Tensor, flipped: Tensor | None = None, *, pinned: bool = False) -> Tensor:
        """Moments [B,m,h,w] or codes [B,h,w] of these items in the cache's own dtype, the mirrored variant where `flipped` [B] is true.

        `Codec.draw` makes latents of them. `pinned` memory is such that an accelerator copies from it while others compute.
        """
        places = (items if flipped is None else items + len(self) * flipped).numpy()
        order = np.argsort(places)
        places = places[order]
        if len(places) and not 0 <= places[0] <= places[-1] < self.starts[-1]:
            raise IndexError(f"Items {places[0]} to {places[-1]} were asked for; there are {self.starts[-1]}.")
        if not self.checked.all():
            self._check(places)
        out = torch.empty((len(places), *self.manifest.shape), dtype=self.dtype, pin_memory=pinned)
        records = out.numpy().reshape(-1).view(self._record)
        cuts = np.searchsorted(places, self.starts)
        for index in np.flatnonzero(np.diff(cuts)).tolist():
            here = slice(cuts[index], cuts[index + 1])
            records[order[here]] = self.parts[index].rows[places[here] - self.starts[index]]
        self.refuse_beyond(out)
        return out

    def refuse_beyond(self, stored: Tensor) -> None:
        """A MismatchError if there is a code that the codebook does not have."""
        if self.manifest.codes is None or not stored.numel():
            return
        values, size = stored.numpy(), self.manifest.codes.size
        if values.max() >= size or values.min() < 0:
            worst = values.max() if values.max() >= size else values.min()
            raise MismatchError(f"A shard of {self.folder} is damaged: it holds code {worst}, and codes go from 0 to {size - 1}. {AGAIN}")

    @property
    def _record(self) -> np.dtype:
        """One row as one value, which numpy copies whole."""
        return np.dtype((np.void, int(np.prod(self.manifest.shape)) * self.dtype.itemsize))

    def items(self, rows: Collection[int] | None = None) -> Iterator[dict[str, Any]]:
        """Stamp and caption of each item, or of these `rows` alone, in the order of the split."""
        first = 0
        for shard in self.shards:
            yield from lines_of(self.folder / shard.items_file, shard.count, first=first, wanted=rows)
            first += shard.count

    def bytes(self) -> int:
        """Size of the shards on disk."""
        return sum((self.folder / shard.file).stat().st_size for shard in self.shards)

    def expect(self, items: Tensor) -> None:
        """Ask the system to read these items, with the neighbours in their BLOCK, in long pieces and without waiting for them."""
        blocks = np.unique(items.numpy() // BLOCK)[:, None] * BLOCK + np.arange(BLOCK)
        places = blocks[blocks < len(self)]
        self._expect(np.concatenate([places + len(self) * variant for variant in range(1 + self.manifest.flipped)]))

    def _expect(self, places: np.ndarray) -> None:
        """`expect` of ascending places; where the system or the disk takes no advice, nothing happens."""
        if not hasattr(os, "posix_fadvise") or not len(places):
            return
        part = np.searchsorted(self.starts, places, side="right") - 1
        cuts = np.flatnonzero((np.diff(places, prepend=-2) != 1) | (np.diff(part, prepend=-1) != 0))
        width = self._record.itemsize
        for first, last in zip(cuts, [*cuts[1:], len(places)], strict=True):
            there = self.parts[part[first]]
            with suppress(OSError), (self.folder / there.shard.file).open("rb") as file:
                begin = there.offset + int(places[first] - self.starts[part[first]]) * width
                os.posix_fadvise(file.fileno(), begin, int(last - first) * width, os.POSIX_FADV_WILLNEED)

    # -- checks

    def verify(self) -> None:
        """Hash every shard; one that is not as it was written is a MismatchError with its name."""
        _at_once(self._check_file, self.shards)
        self.checked[:] = True

    def check(self) -> None:
        """Check every block that has not been checked."""
        self._check_blocks(np.flatnonzero(~self.checked))

    def _check(self, places: np.ndarray) -> None:
        """Check the blocks that hold these places, each at its first touch."""
        part = np.searchsorted(self.starts, places, side="right") - 1
        block = self.blocks[part] + (places - self.starts[part]) // ROWS_PER_CRC
        self._check_blocks(np.unique(block[~self.checked[block]]))

    def _check_blocks(self, blocks: np.ndarray) -> None:
        if not len(blocks):
            return
        part = np.searchsorted(self.blocks, blocks, side="right") - 1
        hashed = [index for index in np.unique(part).tolist() if self.parts[index].crc32 is None]
        _at_once(self._check_file, [self.parts[index].shard for index in hashed])
        for index in hashed:
            self.checked[self.blocks[index] : self.blocks[index + 1]] = True
        _at_once(self._check_block, blocks[~self.checked[blocks]].tolist())

    def _check_block(self, block: int) -> None:
        index = int(np.searchsorted(self.blocks, block, side="right")) - 1
        part, number = self.parts[index], block - int(self.blocks[index])
        first, last = number * ROWS_PER_CRC, min((number + 1) * ROWS_PER_CRC, len(part.rows))
        self._expect(np.arange(first, last) + self.starts[index])  # mapped memory alone is read in much smaller pieces
        assert part.crc32 is not None
        if zlib.crc32(part.rows[first:last].data) != part.crc32[number]:
            raise MismatchError(
                f"{self.folder / part.shard.file} has changed since it was written, in block {number} of its {part.variant} "
                f"(rows {first:,} to {last - 1:,}). {AGAIN}"
            )
        self.checked[block] = True

    def _check_file(self, shard: Shard) -> None:
        try:
            found = weights.file_sha256(self.folder / shard.file)
        except FileNotFoundError:
            raise MismatchError(f"{self.folder / shard.file} is missing. {AGAIN}") from None
        if found != shard.sha256:
            raise MismatchError(f"{self.folder / shard.file} has changed since it was written. {AGAIN}")

    def labels_fit(self) -> bool:
        """Whether as many items have each label as the manifest says; it says so of the training split alone."""
        counts = self.manifest.label_counts
        if self.split != "train":
            return True
        if len(self) and (int(self.labels.min()) < -1 or int(self.labels.max()) >= len(counts)):
            return False
        return torch.bincount(self.labels + 1, minlength=len(counts) + 1).tolist()[1:] == counts


def _at_once(work: Callable[[T], object], given: list[T]) -> None:
    """Do it for each, several at a time; the first error is raised."""
    if len(given) < 2:
        for each in given:
            work(each)
        return
    with ThreadPoolExecutor(min(8, len(given), os.cpu_count() or 1)) as pool:
        for _ in pool.map(work, given):
            pass


def open_latents(folder: Path, manifest: Manifest, split: str) -> Latents:
    """One split, hashed whole when it is small; of a larger one only the labels are looked at, and its rows when they are used."""
    latents = Latents(folder, manifest, split)
    if latents.bytes() <= VERIFIED or not latents.labels_fit():
        latents.verify()
    return latents


# -- training ------------------------------------------------------------------------
