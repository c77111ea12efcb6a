"""Whether the files of a cache are as they were written."""

import json
from collections.abc import Iterator
from pathlib import Path

import safetensors

from ldmctl.errors import MismatchError
from ldmctl.latents.manifest import Manifest, Shard
from ldmctl.latents.plan import Item
from ldmctl.storage import weights

AGAIN = "Encode again: ldmctl encode-dataset --overwrite."


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
