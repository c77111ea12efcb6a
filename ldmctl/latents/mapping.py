"""Shards mapped into memory: which bytes of a file are the rows of which tensor."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ldmctl.config.mapped import in_utf8
from ldmctl.errors import MismatchError
from ldmctl.latents.items import AGAIN
from ldmctl.latents.manifest import WIDTHS, Manifest, Shard
from ldmctl.latents.writer import ROWS_PER_CRC


@dataclass(frozen=True)
class Part:
    """One variant of a shard's rows."""

    shard: Shard
    variant: str  # a tensor of the file: moments, codes or flipped
    rows: np.ndarray  # records of one row's bytes each [n], mapped
    offset: int  # of the first row, in bytes of the file
    crc32: list[int] | None  # of each ROWS_PER_CRC rows, None where the manifest has none


def _map(path: Path, shard: Shard, manifest: Manifest) -> dict[str, tuple[np.ndarray, int]]:
    """(rows [n] as records of their bytes, mapped; their offset in bytes) of each tensor of a shard that its manifest promises."""
    wanted = {"labels": ("I64", [shard.count]), manifest.store: (KINDS[manifest.dtype], [shard.count, *manifest.shape])}
    if manifest.flipped:
        wanted["flipped"] = wanted[manifest.store]
    try:
        size = path.stat().st_size
        with in_utf8(path) as name:
            whole = torch.from_file(name, size=size, dtype=torch.uint8).numpy()  # mapped; unlike numpy.memmap it keeps no file open
        length = int.from_bytes(whole[:8].tobytes(), "little")
        if length > size:
            raise ValueError("its header has no end")
        entries = json.loads(whole[8 : 8 + length].tobytes())
        count = entries[manifest.store]["shape"][0]
        if count != shard.count:
            raise MismatchError(f"{path} holds {count} items, its manifest says {shard.count}. {AGAIN}")
        found = {}
        for name, (kind, shape) in wanted.items():
            entry = entries[name]
            if [entry["dtype"], entry["shape"]] != [kind, shape]:
                raise ValueError(f"{name} is {entry['dtype']} {entry['shape']}, its manifest says {kind} {shape}")
            first, last = (8 + length + int(offset) for offset in entry["data_offsets"])
            if last - first != int(np.prod(shape)) * SIZES[kind] or last > size:
                raise ValueError(f"{name} is cut off")
            found[name] = (whole[first:last].view(np.dtype((np.void, (last - first) // shard.count))), first)
        return found
    except FileNotFoundError:
        raise MismatchError(f"{path} is missing. {AGAIN}") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, RuntimeError) as error:
        raise MismatchError(f"{path} is damaged ({' '.join(str(error).split())[:200]}). {AGAIN}") from None


KINDS = {"float16": "F16", "float32": "F32", "uint8": "U8", "uint16": "U16", "int32": "I32"}  # safetensors' names
SIZES = {"I64": 8, **{kind: WIDTHS[dtype] for dtype, kind in KINDS.items()}}


def _checksums(folder: Path, shard: Shard, variant: str) -> list[int] | None:
    """Of each ROWS_PER_CRC rows, None where the manifest has none."""
    found: list[int] | None = getattr(shard, "crc32_flipped" if variant == "flipped" else "crc32", None) or None
    if found is not None and len(found) != -(-shard.count // ROWS_PER_CRC):
        raise MismatchError(f"{folder / shard.file} has {len(found)} checksums for {shard.count} {variant} in its manifest. {AGAIN}")
    return found
