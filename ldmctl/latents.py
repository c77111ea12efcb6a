"""A cache of latents on disk: shards written one by one, read back through memory maps.

Each split is a row of safetensors shards, moments [n,m,h,w] and labels [n], with
a line of items.jsonl beside each row. latents.json comes last, so a cache that
has one is whole.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldmctl import weights
from ldmctl.engine import Engine
from ldmctl.errors import DataError, MismatchError
from ldmctl.manifest import Manifest, Shard, Statistics

ROWS_PER_CRC = 1024
VERIFIED = 2 << 30  # caches up to this many bytes are hashed whole before they are used
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


class Latents:
    """One split of a cache, mapped into memory: opening it costs the same for a thousand items and for a million."""

    def __init__(self, folder: Path, manifest: Manifest, split: str):
        self.folder, self.manifest, self.split = folder, manifest, split
        self.shards = manifest.splits.get(split, [])
        self.starts = np.cumsum([0, *(shard.count for shard in self.shards)])
        self.maps = [_map(folder / shard.file, shard) for shard in self.shards]
        self.labels = (
            torch.cat([torch.from_numpy(np.array(each["labels"])) for each in self.maps]) if self.maps else torch.zeros(0, dtype=torch.long)
        )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def moments(self, items: Tensor, flipped: Tensor | None = None) -> Tensor:
        """Moments [B,m,h,w] float32 of these items, the mirrored variant where `flipped` [B] is true."""
        rows = items.numpy()
        out = np.empty((len(rows), *self.manifest.moments), dtype=np.float32)
        mirror = np.zeros(len(rows), bool) if flipped is None else flipped.numpy()
        shard_of = np.searchsorted(self.starts, rows, side="right") - 1
        for shard in np.unique(shard_of):
            for name, which in (("moments", ~mirror), ("flipped", mirror)):
                here = np.flatnonzero((shard_of == shard) & which)
                if len(here):
                    out[here] = self.maps[shard][name][rows[here] - self.starts[shard]]
        return torch.from_numpy(out)

    def items(self) -> Iterator[dict[str, Any]]:
        """Stamp and caption of each item, in order."""
        for shard in self.shards:
            with (self.folder / shard.file).with_suffix(".items.jsonl").open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def verify(self) -> None:
        """Hash every shard; one that is not as it was written is a MismatchError with its name."""
        for shard in self.shards:
            if weights.file_sha256(self.folder / shard.file) != shard.sha256:
                raise MismatchError(
                    f"{self.folder / shard.file} has changed since it was written. Encode again: ldmctl encode-dataset --overwrite."
                )

    def bytes(self) -> int:
        """Size of the shards on disk."""
        return sum((self.folder / shard.file).stat().st_size for shard in self.shards)


def _map(path: Path, shard: Shard) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as read-only memory maps."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header has no end")
            entries = json.loads(file.read(length))
        kinds = {"F16": np.float16, "F32": np.float32, "I64": np.int64}
        maps: dict[str, np.ndarray] = {
            name: np.memmap(path, kinds[entry["dtype"]], "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
            for name, entry in entries.items()
            if name != "__metadata__"
        }
        counts = {len(maps[name]) for name in ("labels", "moments")}
    except FileNotFoundError:
        raise MismatchError(f"{path} is missing. Encode again: ldmctl encode-dataset --overwrite.") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise MismatchError(f"{path} is damaged ({error}). Encode again: ldmctl encode-dataset --overwrite.") from None
    if counts != {shard.count}:
        raise MismatchError(
            f"{path} holds {max(counts)} items, its manifest says {shard.count}. Encode again: ldmctl encode-dataset --overwrite."
        )
    return maps


def open_latents(folder: Path, manifest: Manifest, split: str) -> Latents:
    """One split, with its hashes checked when it is small enough for that to take seconds."""
    latents = Latents(folder, manifest, split)
    if latents.bytes() <= VERIFIED:
        latents.verify()
    return latents


class Resident:
    """One split held on the accelerator, so that a step copies nothing. Same answers as `Latents`."""

    def __init__(self, latents: Latents, engine: Engine):
        self.engine = engine
        names = [name for name in ("moments", "flipped") if latents.maps and name in latents.maps[0]]
        self.held = {name: torch.cat([torch.from_numpy(np.array(each[name])).to(engine.device) for each in latents.maps]) for name in names}

    @staticmethod
    def fits(latents: Latents, engine: Engine) -> bool:
        """Whether there is an accelerator and half of its free memory is enough."""
        if engine.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(engine.device)
        return latents.bytes() < free // 2

    def moments(self, items: Tensor, flipped: Tensor | None = None) -> Tensor:
        """Moments [B,m,h,w] float32 on the device, the mirrored variant where `flipped` [B] is true."""
        rows = items.to(self.engine.device, non_blocking=True)
        out = self.held["moments"][rows]
        if flipped is not None:
            mirror = flipped.to(self.engine.device)
            out = torch.where(mirror.view(-1, 1, 1, 1), self.held["flipped"][rows], out)
        return out.float()
