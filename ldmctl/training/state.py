"""What a run continues from: state.safetensors, one file and one rename, and of a sharded network a file from each rank beside it.

The ranks' files are written first, under names of their own step. state.safetensors names them with their size and SHA-256, so that
its rename is the commit; then those that it does not name are deleted. Any number of ranks reads any state, each the rows it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldmctl.errors import MismatchError, with_article
from ldmctl.storage import headers, weights
from ldmctl.storage.record import WAYS
from ldmctl.training.engine import Engine
from ldmctl.training.fsdp import Spread, is_sharded, local, rows

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

FILE = "state.safetensors"


def save(folder: Path, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any], engine: Engine) -> None:
    """Replace the state in a run folder; every rank takes part. `scalars` hold the `step`."""
    sharded = {name: value for name, value in tensors.items() if is_sharded(value)}
    shards = _save_shards(folder, sharded, int(scalars["step"]), engine) if sharded else []
    if engine.leads:
        whole = {name: value for name, value in tensors.items() if name not in sharded}
        weights.save(folder / FILE, whole, {"kind": "state", "scalars": dict(scalars), **({"shards": shards} if shards else {})})
        _delete_others(folder, shards)


def _delete_others(folder: Path, shards: Sequence[Mapping[str, Any]]) -> None:
    """Delete the ranks' files of states that are no more, and what a killed rank has left."""
    named = {shard["file"] for shard in shards}
    for old in [*folder.glob("state-*-of-*.safetensors"), *folder.glob(".state-*-of-*.tmp")]:
        if old.name not in named:
            old.unlink(missing_ok=True)


def _save_shards(folder: Path, tensors: Mapping[str, DTensor], step: int, engine: Engine) -> list[dict[str, Any]]:
    """Write this rank's rows -> name, size and SHA-256 of the files of all ranks."""
    names = [f"state-{step:09d}-{rank:05d}-of-{engine.world:05d}.safetensors" for rank in range(engine.world)]
    held = {name: rows(value) for name, value in tensors.items()}
    filled = {name: local(tensors[name]) for name, own in held.items() if own.stop > own.start}
    places = {name: [held[name].start, len(tensors[name])] for name in filled}
    file = folder / names[engine.rank]
    weights.save(file, filled, {"kind": "state-shard", "step": step, "rows": places})

    table = torch.zeros(engine.world, 33, dtype=torch.int64)
    table[engine.rank] = torch.tensor([file.stat().st_size, *bytes.fromhex(weights.file_sha256(file))])
    written = engine.total(table.to(engine.device)).tolist()  # and all files are there
    return [{"file": name, "size": row[0], "sha256": bytes(row[1:]).hex()} for name, row in zip(names, written, strict=True)]


def load(folder: Path, engine: Engine) -> tuple[dict[str, Tensor | Spread], dict[str, Any]] | None:
    """(tensors, scalars) of the last saved state, None when there is none yet; every rank takes part.

    Tensors are mapped, so what nobody looks at is not read. Files that are missing or damaged are a MismatchError on all ranks, and
    so is a state that not all of them see.
    """
    file = folder / FILE
    there = file.exists()
    if engine.any(there) and engine.any(not there):
        raise MismatchError(f"Some processes see {file} and others do not: all machines must see the same run folder.")
    if not there:
        return None
    tensors, header = weights.load(file)
    if header.get("kind") != "state":
        raise MismatchError(f"{file} is not the state of a run but {with_article(str(header.get('kind', 'file')))}. {WAYS}")
    headers.check(headers.State, header, file)
    shards = header.get("shards", [])
    if shards:
        _check(folder, shards, engine)
        if engine.leads:
            _delete_others(folder, shards)  # a process that was killed may not have come to it
    return {**tensors, **_spread(folder, shards)}, header["scalars"]


def _check(folder: Path, shards: Sequence[Mapping[str, Any]], engine: Engine) -> None:
    """A MismatchError unless all files are as they were written. Each rank reads some of them."""
    mine = range(engine.rank, len(shards), engine.world)
    bad = next((number for number in mine if _fault(folder, shards[number])), len(shards))
    bad = -int(engine.maximum(torch.tensor(-bad, device=engine.device)))
    if bad < len(shards):
        raise MismatchError(
            f"{folder / shards[bad]['file']} {_fault(folder, shards[bad])}, and the run's state is not whole without it. Put it back. {WAYS}"
        )


def _fault(folder: Path, shard: Mapping[str, Any]) -> str:
    """What is wrong with a file, `` if nothing is."""
    file = folder / shard["file"]
    if not file.exists():
        return "is missing"
    if file.stat().st_size != shard["size"]:
        return f"is damaged: it has {file.stat().st_size:,} bytes of {shard['size']:,}"
    return "" if weights.file_sha256(file) == shard["sha256"] else "is damaged: its SHA-256 is another"


def _spread(folder: Path, shards: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """Tensors whose rows stand in these files, by name."""
    counts: dict[str, int] = {}
    pieces: dict[str, list[tuple[int, Tensor]]] = {}
    for shard in shards:
        tensors, header = weights.load(folder / shard["file"])
        for name, (first, counts[name]) in header["rows"].items():
            pieces.setdefault(name, []).append((first, tensors[name]))
    return {name: Spread(counts[name], found) for name, found in pieces.items()}
