"""One million cached latents [4,8,8]: seconds to open them, milliseconds per batch of 64, private memory; beside rows read by a DataLoader.

python benchmarks/latents.py

Random values, in shards as `encode-dataset` writes them, made in a temporary folder. The first pass over them is the one in which
every block is checked; medians are of the passes after it, so the page cache is warm for all. The peer is a torch DataLoader over
a Dataset that maps one array file and yields row by row. Memory is RssAnon above that of a process that has only imported torch.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, keep
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ldmctl.config.schemas.shared import Loop
from ldmctl.latents import manifest as manifests
from ldmctl.latents.manifest import Manifest, Shard, Statistics
from ldmctl.latents.reader import Latents, open_latents
from ldmctl.latents.stream import training_latents
from ldmctl.storage import weights
from ldmctl.training.engine import Engine
from ldmctl.training.order import batch_items

COUNT, SHAPE, SHARD, CLASSES = 1_000_000, (4, 8, 8), 16_384, 10
BATCH, BATCHES = 64, 2000
PIECE = 100  # batches of each way in turn
STATUS = Path("/proc/self/status")
TORCH_ALONE = """
import torch, json
line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(json.dumps({"private_mib": int(line.split()[1]) / 1024}))
"""


def main() -> None:
    """Make the latents, then each measurement in a process of its own."""
    machine = describe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        found = child(__file__, "opening", name) | child(__file__, "times", name)
        if STATUS.exists():
            torch_alone = child("-c", TORCH_ALONE)["private_mib"]
            found["private_mib_above_torch"] = {
                shuffle: round(child(__file__, "memory", name, shuffle)["private_mib"] - torch_alone, 1) for shuffle in ("full", "blocks")
            }
    keep("latents", {"items": COUNT, "latent": list(SHAPE), "batch": BATCH, "batches": BATCHES, **found}, machine)


def child(*words: str) -> dict[str, Any]:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make(folder: Path) -> None:
    """folder/latents.json and its shards, and the same rows as one array file for the peer."""
    random, shards, counts = np.random.default_rng(0), [], np.zeros(CLASSES, int)
    whole = np.lib.format.open_memmap(folder / "peer.npy", "w+", np.float16, (COUNT, *SHAPE))
    for number, first in enumerate(range(0, COUNT, SHARD)):
        rows = slice(first, min(first + SHARD, COUNT))
        whole[rows] = random.standard_normal((rows.stop - first, *SHAPE), np.float32)
        labels = random.integers(0, CLASSES, rows.stop - first)
        counts += np.bincount(labels, minlength=CLASSES)
        moments = torch.from_numpy(np.array(whole[rows]))
        path = folder / f"train-{number:05d}.safetensors"
        weights.save(path, {"moments": moments, "labels": torch.from_numpy(labels)}, {"kind": "latents", "split": "train"})
        crc32 = [zlib.crc32(part.numpy().tobytes()) for part in moments.split(1024)]
        shards.append(Shard(file=path.name, count=len(labels), sha256=weights.file_sha256(path), crc32=crc32))
    manifest = Manifest(
        format=manifests.FORMAT,
        moments=SHAPE,
        latent=SHAPE,
        dtype="float16",
        flipped=False,
        statistics=Statistics(mean=[0.0] * SHAPE[0], deviation=[1.0] * SHAPE[0]),
        classes=[str(index) for index in range(CLASSES)],
        label_counts=counts.tolist(),
        data=None,
        image={},
        autoencoder={},
        fingerprint="",
        splits={"train": shards},
    )
    (folder / "latents.json").write_text(manifest.model_dump_json())


class RowByRow(Dataset):
    """One row at a time of a mapped array, as float32."""

    def __init__(self, file: Path):
        self.rows = np.load(file, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.rows[index])).float()


def opening(folder: Path) -> dict[str, float]:
    """Seconds from the manifest's text to latents that can be asked; the second time, when what it takes is in memory."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        open_latents(folder, manifests.read(folder), "train")
        seconds.append(time.perf_counter() - began)
    return {"seconds_to_open_first": round(seconds[0], 4), "seconds_to_open": round(statistics.median(seconds[1:]), 4)}


def times(folder: Path) -> dict[str, Any]:
    """Median milliseconds a batch: read where it is wanted, read ahead, and the peer's with no worker, in turn."""
    latents = open_latents(folder, manifests.read(folder), "train")
    engine, items = Engine(torch.device("cpu"), torch.float32), torch.arange(COUNT).split(SHARD)
    began = time.perf_counter()
    for part in items:
        latents.stored(part)
    first_pass = time.perf_counter() - began
    loops = {shuffle: Loop(steps=10 * BATCHES, batch=BATCH, shuffle=shuffle) for shuffle in ("full", "blocks")}
    random = torch.Generator().manual_seed(0)
    ways: dict[str, Iterator] = {
        **{shuffle: in_place(latents, loop) for shuffle, loop in loops.items()},
        **{
            f"{shuffle}_read_ahead": (
                batch.stored.float() for batch in training_latents(latents, loop, engine, rows=slice(0, BATCH), flip=False, first=0)
            )
            for shuffle, loop in loops.items()
        },
        "dataloader": iter(DataLoader(RowByRow(folder / "peer.npy"), BATCH, shuffle=True, generator=random)),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for _ in range(3):
            next(way)  # an epoch's order is drawn
    for _ in range(BATCHES // PIECE):
        for name, way in ways.items():
            for _ in range(PIECE):
                began = time.perf_counter()
                next(way)
                taken[name].append(1000 * (time.perf_counter() - began))
    medians = {name: round(statistics.median(values), 4) for name, values in taken.items()}
    return {
        "seconds_to_check_all": round(first_pass, 3),
        "median_ms_per_batch": medians,
        "percentile_99_ms_per_batch": {name: round(statistics.quantiles(values, n=100)[98], 4) for name, values in taken.items()},
        "dataloader_over_full": round(medians["dataloader"] / medians["full"], 2),
    }


def in_place(latents: Latents, loop: Loop) -> Iterator[Tensor]:
    """Moments [B,m,h,w] of each batch, read when it is asked for."""
    for step in range(loop.steps):
        yield latents.stored(batch_items(loop.seed, len(latents), loop.batch, step, loop.shuffle)).float()


def memory(folder: Path, shuffle: str) -> dict[str, float]:
    """MiB of memory that no file stands for, after batches of two epochs."""
    latents = open_latents(folder, manifests.read(folder), "train")
    engine, epoch = Engine(torch.device("cpu"), torch.float32), COUNT // BATCH
    for first in (0, epoch - BATCHES // 2):
        loop = Loop(steps=first + BATCHES, batch=BATCH, shuffle=shuffle)
        for _ in training_latents(latents, loop, engine, rows=slice(0, BATCH), flip=False, first=first):
            pass
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return {"private_mib": int(line.split()[1]) / 1024}


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        what, name, *words = sys.argv[1:]
        print(json.dumps({"opening": opening, "times": times, "memory": memory}[what](Path(name), *words)))
