"""A cache of latents on disk, written shard by shard; `latents` reads it.

Each split is a row of safetensors shards, moments [n,m,h,w] and labels [n], with
a line of items.jsonl beside each row. latents.json comes last, so a cache that
has one is whole.
"""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl import weights
from ldmctl.errors import DataError
from ldmctl.manifest import Shard, Statistics

ROWS_PER_CRC = 1024
DTYPES = {"float16": torch.float16, "float32": torch.float32}


class ShardWriter:
    """Collects rows of one split and writes a shard whenever `size` of them are there."""

    def __init__(self, folder: Path, split: str, size: int, dtype: torch.dtype):
        self.folder, self.split, self.size, self.dtype = folder, split, size, dtype
        self.shards: list[Shard] = []
        self.rows: dict[str, list[Tensor]] = {}
        self.items: list[dict[str, Any]] = []

    def add(self, rows: dict[str, Tensor], items: Sequence[dict[str, Any]]) -> None:
        """`moments` [n,m,h,w] float32, perhaps `flipped`, `labels` [n], and n items. Values that do not fit are a DataError."""
        for name, value in rows.items():
            stored = value.to("cpu", self.dtype) if value.is_floating_point() else value.to("cpu")
            if value.is_floating_point() and not stored.isfinite().all():
                which = [items[i].get("stamp") for i in (~stored.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()[:5]]
                raise DataError(
                    f"Moments are not finite in {self.dtype} for {which}. Try dtype=float32; if it persists, the autoencoder has diverged."
                )
            self.rows.setdefault(name, []).append(stored)
        self.items.extend(items)
        while len(self.items) >= self.size:
            self._write(self.size)

    def close(self) -> list[Shard]:
        """Write what is left and say what there is."""
        if self.items:
            self._write(len(self.items))
        return self.shards

    def _write(self, count: int) -> None:
        whole = {name: torch.cat(parts) for name, parts in self.rows.items()}
        self.rows = {name: [value[count:]] for name, value in whole.items()}
        tensors = {name: value[:count].contiguous() for name, value in whole.items()}
        items, self.items = self.items[:count], self.items[count:]
        path = self.folder / f"{self.split}-{len(self.shards):05d}.safetensors"
        weights.save(path, tensors, {"kind": "latents", "split": self.split})
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        weights.write_text(path.with_suffix(".items.jsonl"), lines)
        crc = [zlib.crc32(rows.numpy().tobytes()) for rows in tensors["moments"].split(ROWS_PER_CRC)]
        self.shards.append(Shard(file=path.name, count=count, sha256=weights.file_sha256(path), crc32=crc))


class Tally:
    """Mean and deviation of latents, float64, gathered batch by batch and merged by Chan's formula."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.square: Tensor = torch.zeros(())  # sum of squared distances from the mean, per channel

    def add(self, latent: Tensor) -> None:
        """[B,c,h,w], not whitened."""
        values = latent.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
        count, mean = values.shape[1], values.mean(1)
        square = (values - mean[:, None]).square().sum(1)
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
