"""Whether the files of a cache are as they were written."""

from collections.abc import Iterator
from pathlib import Path

from ldmctl.errors import MismatchError
from ldmctl.latents.items import AGAIN, read_items
from ldmctl.latents.manifest import Manifest
from ldmctl.storage import weights


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
