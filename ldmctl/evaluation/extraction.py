"""Pictures as an extractor sees them: features, pixels made small, labels. What was found is kept in a file, by data and extractor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmctl.attribution import expect_shape
from ldmctl.console import Console
from ldmctl.errors import DataError, MismatchError
from ldmctl.pictures.batches import Batch, Pictures
from ldmctl.pictures.workers import batches
from ldmctl.storage import weights
from ldmctl.storage.leftovers import sweep
from ldmctl.training.engine import Engine

SMALL = 32  # pixels of a side in which pictures are compared as they are


@dataclass(frozen=True)
class Seen:
    """Pictures that could be read, in order."""

    features: Tensor  # [N,D] float32
    mirrored: Tensor  # [N,D], of the same pictures mirrored
    small: Tensor  # uint8 [N,C,s,s], averaged to at most SMALL pixels
    labels: Tensor  # [N], -1 where unknown
    rows: Tensor  # [N]: where each stands in its set

    def __len__(self) -> int:
        return len(self.features)

    def take(self, which: Tensor) -> Seen:
        """Those at these places [K], or where this mask [N] is true."""
        return Seen(*(getattr(self, field.name)[which] for field in fields(self)))

    def join(self, other: Seen) -> Seen:
        """These and then those, of the same extractor."""
        return Seen(*(torch.cat([getattr(each, field.name) for each in (self, other)]) for field in fields(self)))


@torch.no_grad()
def look_at(found: Iterable[Batch], extractor: Any, engine: Engine) -> Seen:
    """All batches through the extractor; a picture in place of one that cannot be read is left out. None at all is a DataError."""
    parts: list[Seen] = []
    for batch in found:
        good = [place for place, (asked, used) in enumerate(zip(batch.index, batch.used, strict=True)) if asked == used]
        if good:
            image = batch.image[good]
            both = [numbers(extractor, each, engine) for each in (image, image.flip(-1))]
            labels, rows = ([values[place] for place in good] for values in (batch.label, batch.index))
            parts.append(Seen(both[0], both[1], shrunk(image), torch.tensor(labels), torch.tensor(rows)))
    if not parts:
        raise DataError("There is no picture that can be read to be compared.")
    return Seen(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Seen)))


def numbers(extractor: Any, image: Tensor, engine: Engine) -> Tensor:
    """Features [B,D] float32 on the CPU of uint8 [B,C,H,W]."""
    features = extractor(image.to(engine.device)).float().cpu()
    expect_shape(features, (len(image), None), extractor, "forward")
    return features


def shrunk(image: Tensor) -> Tensor:
    """uint8 [B,C,S,S] -> uint8 [B,C,s,s], by averaging."""
    if image.shape[-1] <= SMALL:
        return image.contiguous()
    return F.adaptive_avg_pool2d(image.float(), SMALL).round().to(torch.uint8)


def chosen(pictures: Pictures, rows: Sequence[int], batch: int, workers: int, console: Console, what: str) -> Iterator[Batch]:
    """These pictures of a split once and as they are, with a bar."""
    with console.bar(what, len(rows)) as bar:
        done = 0
        for found in batches(
            pictures, ([(row, row) for row in rows[at : at + batch]] for at in range(0, len(rows), batch)), workers=workers
        ):
            yield found
            done += len(found.index)
            bar.advance(done, amount=done)


# -- kept ----------------------------------------------------------------------


def identity(pictures: Pictures, rows: Sequence[int], preparation: dict[str, Any]) -> str:
    """A hash of which pictures these are, of which classes, and how they are prepared."""
    digest = hashlib.sha256(json.dumps([preparation, pictures.classes], sort_keys=True).encode())
    for row in rows:
        digest.update(f"{row} {_label(pictures, row)} {pictures.stamp(row)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _label(pictures: Pictures, row: int) -> int | None:
    """Labels may stand in a table, whose lines change where the picture's file does not; None where only the picture has it, or it is broken."""
    try:
        return pictures.note(row)[0] if hasattr(pictures.dataset, "note") else None
    except DataError:
        return None


def read_kept(file: Path, key: str) -> Seen | None:
    """What is kept under this key, None where there is nothing, or something else."""
    try:
        tensors, header = weights.load(file)
        return Seen(**tensors) if header.get("key") == key else None
    except (MismatchError, TypeError):
        return None


def keep(file: Path, key: str, seen: Seen, console: Console) -> None:
    """Write it, or say why the next command has to look again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sweep(file.parent)
        weights.save(file, {field.name: getattr(seen, field.name) for field in fields(seen)}, {"kind": "features", "key": key})
    except OSError as error:
        console.warn(f"Features could not be kept in {file.parent} ({error.strerror}); the next command computes them again.")
