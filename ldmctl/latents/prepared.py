"""What a conditioner's frozen half made of each caption, map or picture, kept in shards beside the latents.

A shard is one safetensors file: `keys` uint8 [n,32], a SHA-256 of what each row was made of; `counts` int32 [n], how many tokens it has;
`cut` uint8 [n], whether its end was cut off; and the prepared tensors themselves, all rows one after the other, [sum of counts, ...] each.
So a row of another caption is one more row, and none is made twice. A shard has the name of what it holds, and is there whole or not
at all: several ranks, or several commands, may write into one folder.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldmctl.config.mapped import in_utf8
from ldmctl.errors import MismatchError
from ldmctl.storage import weights

KINDS = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
}
OWN = ("keys", "counts", "cut")  # tensors of a shard that are not prepared ones
ABOUT = "about.json"
EVEN = 8  # rows of a batch are padded to a multiple of it, so that a compiled network meets few lengths

Row = Mapping[str, Tensor]  # prepared tensors of one caption, map or picture, [n, ...] each


def key_of(text: str) -> bytes:
    """What a row is known by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Shard:
    """Rows that lie one after the other, in memory or in a file that is mapped into it."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.keys = np.ascontiguousarray(tensors["keys"].numpy()).view("V32").ravel().tolist()
        self.cut = tensors["cut"].numpy().astype(bool)
        self.counts = tensors["counts"].numpy().astype(np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.parts = {name: value for name, value in tensors.items() if name not in OWN}

    def row(self, place: int) -> dict[str, Tensor]:
        """The prepared tensors at a place, [n, ...] each."""
        first, last = int(self.starts[place]), int(self.starts[place + 1])
        return {name: value[first:last] for name, value in self.parts.items()}


class Prepared:
    """All rows that there are, by their keys."""

    def __init__(self, shards: Iterable[Shard]):
        self.shards = list(shards)
        self.places = {key: (number, place) for number, shard in enumerate(self.shards) for place, key in enumerate(shard.keys)}

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, key: bytes) -> bool:
        return key in self.places

    def row(self, key: bytes) -> dict[str, Tensor]:
        """The prepared tensors of a key, [n, ...] each."""
        number, place = self.places[key]
        return self.shards[number].row(place)

    def is_cut(self, key: bytes) -> bool:
        """Whether the end of what a row was made of was cut off."""
        number, place = self.places[key]
        return bool(self.shards[number].cut[place])

    def counts(self) -> np.ndarray:
        """How many tokens each row has."""
        return np.array([self.shards[number].counts[place] for number, place in self.places.values()], dtype=np.int64)


def padded(rows: Sequence[Row], *, even: int = EVEN) -> dict[str, Tensor]:
    """Rows as one batch: each tensor [B,N,...], zeros behind the end of a row, and `mask` bool [B,N], true where a row has a token."""
    counts = [len(next(iter(row.values()))) for row in rows]
    longest = -(-max(counts) // even) * even
    mask = torch.arange(longest) < torch.tensor(counts)[:, None]
    batch: dict[str, Tensor] = {"mask": mask}
    for name, first in rows[0].items():
        batch[name] = first.new_zeros((len(rows), longest, *first.shape[1:]))
        batch[name][mask] = torch.cat([row[name] for row in rows])
    return batch


def gathered(rows: Sequence[Row], keys: Sequence[bytes], cut: Sequence[bool]) -> dict[str, Tensor]:
    """The tensors of a shard with these rows."""
    parts = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    counts = torch.tensor([len(next(iter(row.values()))) for row in rows], dtype=torch.int32)
    named = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 32)
    return {"keys": named, "counts": counts, "cut": torch.tensor(cut, dtype=torch.uint8), **parts}


def write(folder: Path, rows: Sequence[Row], keys: Sequence[bytes], cut: Sequence[bool]) -> Path:
    """Write a shard of these rows, whole or not at all."""
    tensors = gathered(rows, keys, cut)
    file = folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}.safetensors"
    weights.save(file, tensors, {"kind": "prepared", "crc32": checksum(tensors)})
    return file


def opened(folder: Path, *, checked: bool = True) -> Prepared:
    """All rows of a folder; a damaged shard is a MismatchError that says what to do. Unless `checked`, what is in it is not read as a whole."""
    return Prepared(Shard(_mapped(file, checked=checked)) for file in shards_in(folder))


def shards_in(folder: Path) -> list[Path]:
    """The files of its shards."""
    return sorted(folder.glob("*.safetensors"))


def fault(file: Path) -> str:
    """What is wrong with a shard; '' where nothing is."""
    try:
        _mapped(file)
    except MismatchError as error:
        return str(error)
    return ""


def note(folder: Path, about: Mapping[str, Any]) -> None:
    """Write down what the rows of a folder are made by, for those who look into it."""
    text = json.dumps(about, indent=2, default=str) + "\n"
    if not (folder / ABOUT).exists() or (folder / ABOUT).read_text(encoding="utf-8", errors="replace") != text:
        weights.write_text(folder / ABOUT, text)


def noted(folder: Path) -> dict[str, Any]:
    """The same as it was written; {} where it was not, or is damaged."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """Of the bytes of all tensors, in the order of their names."""
    value = 0
    for name in sorted(tensors):
        flat = tensors[name].contiguous().view(-1)
        value = zlib.crc32(flat.view(torch.uint8).numpy().data if flat.numel() else b"", value)
    return value


def _mapped(file: Path, *, checked: bool = True) -> dict[str, Tensor]:
    """The tensors of a shard, mapped into memory."""
    try:
        size = file.stat().st_size
        with in_utf8(file) as name:
            whole = torch.from_file(name, size=size, dtype=torch.uint8)
        length = int.from_bytes(bytes(whole[:8].numpy()), "little")
        entries = json.loads(bytes(whole[8 : 8 + length].numpy()))
        header: dict[str, Any] = json.loads(entries.pop("__metadata__")["ldmctl"])
        tensors = {}
        for name, entry in entries.items():
            first, last = (8 + length + int(offset) for offset in entry["data_offsets"])
            part, kind = whole[first:last], KINDS[entry["dtype"]]
            tensors[name] = (part if first % kind.itemsize == 0 else part.clone()).view(kind).view(entry["shape"])
        if (checked and checksum(tensors) != header["crc32"]) or int(tensors["counts"].sum()) != len(
            next(v for k, v in tensors.items() if k not in OWN)
        ):
            raise ValueError("its contents have changed since it was written")
        return tensors
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RuntimeError, StopIteration) as error:
        raise MismatchError(
            f"{file} is damaged ({' '.join(str(error).split())[:160]}). Delete it: the next fit-diffusion makes its rows again."
        ) from None
