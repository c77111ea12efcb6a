"""Whether the files of a cache are as they were written."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ldmctl.errors import MismatchError
from ldmctl.latents.items import AGAIN, read_items
from ldmctl.latents.manifest import Manifest, Shard
from ldmctl.storage import weights


def faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """A sentence for each file of a cache that is not as it was written."""
    for shards in manifest.splits.values():
        for shard in shards:
            if fault := shard_fault(folder, shard):
                yield fault


def damaged(folder: Path, shards: Sequence[Shard]) -> dict[str, str]:
    """{name of a shard: what is wrong} of those that are not as they were written; all files are read, several at a time."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        faults = pool.map(lambda shard: shard_fault(folder, shard), shards)
        return {shard.file: fault for shard, fault in zip(shards, faults, strict=True) if fault}


def shard_fault(folder: Path, shard: Shard) -> str:
    """What is wrong with a shard or its items; '' when nothing is."""
    if fault := file_fault(folder / shard.file, shard.sha256) or file_fault(folder / shard.items_file, shard.items_sha256):
        return fault
    try:
        if not {"moments", "codes"} & set(weights.names(folder / shard.file)):
            return f"{folder / shard.file} is damaged: it holds neither moments nor codes."
        read_items(folder, shard)
    except MismatchError as error:
        return str(error).removesuffix(AGAIN).strip()
    return ""


def file_fault(path: Path, sha256: str) -> str:
    """Why a file is not what the manifest says; '' when it is, or when no hash was recorded."""
    if not path.exists():
        return f"{path} is missing."
    return f"{path} has changed since it was written." if sha256 and weights.file_sha256(path) != sha256 else ""
