"""The first pictures of a command side by side: in the order of their seeds or, of several labels in turn, with a row for each label."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ldmctl.pictures.png import grid

MOST = 256  # pictures that a sheet shows


def places(count: int, rows: int) -> list[int | None]:
    """Which of `count` pictures stand on the sheet, row by row; None is a place left empty. `rows` is 0 where any order will do."""
    if not 1 < rows <= MOST:
        return list(range(min(count, MOST)))
    columns = _columns(count, rows)
    return [place if (place := row + rows * column) < count else None for row in range(rows) for column in range(columns)]


def sheet(count: int, rows: int, picture: Callable[[int], Tensor]) -> Tensor:
    """uint8 [C,H',W'] of `count` pictures [C,H,W], which `picture` gives by their places."""
    shown = places(count, rows)
    first = picture(0)
    empty = torch.full_like(first, 0 if len(first) == 4 else 255)
    images = torch.stack([empty if place is None else picture(place) for place in shown])
    return grid(images, _columns(count, rows) if 1 < rows <= MOST else None)


def _columns(count: int, rows: int) -> int:
    return min(math.ceil(count / rows), MOST // rows)
