"""A cache of latents on disk, read back through memory maps; `shards` wrote it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldmctl import weights
from ldmctl.engine import Engine
from ldmctl.errors import MismatchError
from ldmctl.manifest import Manifest, Shard

VERIFIED = 2 << 30  # caches up to this many bytes are hashed whole before they are used


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
