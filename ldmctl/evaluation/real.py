"""The real pictures that samples are judged by: references, others that are held aside as if they were samples, and all training pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl.console import Console
from ldmctl.errors import DataError
from ldmctl.evaluation.comparison import Reference
from ldmctl.evaluation.extraction import Seen, chosen, identity, keep, look_at, read_kept
from ldmctl.pictures.batches import Pictures, evenly
from ldmctl.training.engine import Engine


@dataclass(frozen=True)
class Aside:
    """Rows of the training and of the held-out pictures, and which serve what."""

    reference: list[int]  # of the training pictures
    train: list[int]  # of them too: set aside where too few are held out
    val: list[int]

    @property
    def count(self) -> int:
        """Pictures that stand for samples."""
        return len(self.train) + len(self.val)


@dataclass(frozen=True)
class Real:
    """What the extractor sees of them."""

    reference: Seen
    aside: Seen  # as many as there are samples, or as there are to be had
    train: Seen | None  # every training picture; None where the nearest are not looked for
    val: Seen | None  # those of `aside` that are no training pictures

    @property
    def compared(self) -> Reference:
        """The references, as distances take them."""
        return Reference(self.reference.features)


def set_aside(train: int, val: int, count: int, most: int) -> Aside:
    """For so many samples: held-out pictures first, then training pictures that are no references; at most half of all. Evenly over each."""
    wanted = min(count, (train + val) // 2)
    from_val = evenly(val, wanted).tolist()
    from_train = evenly(train, wanted - len(from_val)).tolist()
    taken = set(from_train)
    rest = [row for row in range(train) if row not in taken]
    return Aside([rest[place] for place in evenly(len(rest), most).tolist()], from_train, from_val)


def look_at_real(
    splits: dict[str, Pictures],
    aside: Aside,
    extractor: Any,
    engine: Engine,
    *,
    every: bool,
    batch: int,
    workers: int,
    home: Path,
    key: dict[str, Any],
    console: Console,
) -> Real:
    """All that is needed of them; what an earlier command saw is read from `home`. `every` training picture, or only those that are compared."""

    def seen(split: str, rows: Sequence[int]) -> Seen:
        name = identity(splits[split], rows, key)
        file = home / f"features-{split}-{name[:16]}.safetensors"
        if (found := read_kept(file, name)) is None:
            found = look_at(chosen(splits[split], rows, batch, workers, console, f"looking at {split}"), extractor, engine)
            keep(file, name, found, console)
        return found

    if not aside.reference:
        raise DataError("There are no training pictures to compare samples with.")
    rows = list(range(len(splits["train"]))) if every else sorted({*aside.reference, *aside.train})
    train = seen("train", rows)
    val = seen("val", aside.val) if aside.val else None
    more = train.take(among(train.rows, aside.train))
    return Real(
        reference=train.take(among(train.rows, aside.reference)),
        aside=more if val is None else val.join(more),
        train=train if every else None,
        val=val,
    )


def among(rows: Tensor, wanted: Sequence[int]) -> Tensor:
    """bool [N]: which of these rows are wanted."""
    return torch.isin(rows, torch.tensor(wanted, dtype=torch.long))


def labelled(pictures: Pictures, batch: int, workers: int, console: Console) -> Iterator[tuple[Tensor, Tensor]]:
    """Every picture of a split that can be read, with its label, for an extractor to learn from."""
    for found in chosen(pictures, list(range(len(pictures))), batch, workers, console, "reading train"):
        good = [place for place, (asked, used) in enumerate(zip(found.index, found.used, strict=True)) if asked == used]
        yield found.image[good], torch.tensor([found.label[place] for place in good], dtype=torch.long)
