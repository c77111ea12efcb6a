"""Sheets of pairs: samples over the pictures that they are nearest to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ldmctl.evaluation.extraction import Seen
from ldmctl.evaluation.figures import captioned
from ldmctl.evaluation.memorisation import Copies
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import to_float
from ldmctl.pictures.png import write_png

COLUMNS, ROWS = 8, 3  # pairs of a row, rows of pairs


def write_pairs(file: Path, found: Copies, samples: tuple[Pictures, Seen], others: tuple[Pictures, Seen], names: tuple[str, str]) -> Path:
    """The closest pairs, the nearest first; `others` are the pictures that `found` was searched in. What was mirrored is shown mirrored."""
    order = found.order[: COLUMNS * ROWS]
    (mine, seen), (theirs, known) = samples, others
    rows: list[tuple[str, Tensor]] = []
    for part in order.split(COLUMNS):
        above = full(mine, seen.rows[part])
        turned = found.pixels.mirrored[part].tolist()
        below = full(theirs, known.rows[found.pixels.index[part]])
        below = torch.stack([each.flip(-1) if flipped else each for each, flipped in zip(below, turned, strict=True)])
        rows += [(names[0], above), (names[1], below)]
    write_png(
        file,
        captioned(rows, columns=min(COLUMNS, len(order))),
        {"Description": f"Rows: {names[0]}, below each {names[1]}, the closest pairs first."},
    )
    return file


def full(pictures: Pictures, rows: Tensor) -> Tensor:
    """[n,C,H,W] in [-1, 1] of these rows of a set."""
    return to_float(pictures.batch([(row, None) for row in rows.tolist()]).image)
