"""Masks of holes, bool [B,h,w], of four kinds; each row of a batch has its own numbers of the generator."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

POINTS = 6  # of a stroke
COARSE = 4  # cells along each side of the noise that free shapes are cut from


def rectangles(count: int, rows: int, columns: int, generator: Generator) -> Tensor:
    """From a fifth to the whole of each side, anywhere inside."""
    draws = _uniform(generator, count, 4)
    sides = 0.2 + 0.8 * draws[:, :2]
    starts = draws[:, 2:] * (1 - sides)
    y, x = _places(rows, columns, generator)
    top, left, bottom, right = (edge[:, None, None] for edge in torch.cat([starts, starts + sides], dim=1).unbind(1))
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def half_planes(count: int, rows: int, columns: int, generator: Generator) -> Tensor:
    """One side of a line in any direction through a point of the picture's middle, which is three quarters of each side."""
    angle, through_y, through_x = (draw[:, None, None] for draw in _uniform(generator, count, 3).unbind(1))
    y, x = ((place - 0.5) / 0.75 + 0.5 for place in _places(rows, columns, generator))
    angle = 2 * torch.pi * angle
    return (y - through_y) * angle.sin() + (x - through_x) * angle.cos() > 0


def strokes(count: int, rows: int, columns: int, generator: Generator) -> Tensor:
    """All that a round brush touches that is drawn from point to point, a twentieth to a fifth of the picture thick."""
    draws = _uniform(generator, count, 2 * POINTS + 1)
    points, radius = draws[:, :-1].unflatten(1, (POINTS, 2)), 0.025 + 0.075 * draws[:, -1]
    start, along = points[:, :-1, None], points.diff(dim=1)[:, :, None]  # [B,segments,1,2]
    place = torch.stack(torch.broadcast_tensors(*_places(rows, columns, generator)), dim=-1).view(1, 1, rows * columns, 2)
    share = ((place - start) * along).sum(3, keepdim=True) / along.square().sum(3, keepdim=True).clamp_min(1e-12)
    distance = (place - start - share.clamp(0, 1) * along).norm(dim=3).amin(1).unflatten(1, (rows, columns))
    return distance < radius[:, None, None].clamp_min(0.5 / max(rows, columns))


def free_shapes(count: int, rows: int, columns: int, generator: Generator) -> Tensor:
    """Where smooth noise is below one of its own values, which leaves a tenth to nine tenths of the picture."""
    noise = torch.randn(count, 1, COARSE, COARSE, generator=generator, device=generator.device)
    smooth = F.interpolate(noise, (rows, columns), mode="bicubic", align_corners=False).flatten(1)
    share = 0.1 + 0.8 * _uniform(generator, count, 1)
    order = smooth.sort(dim=1).values
    level = order.gather(1, (share * (rows * columns - 1)).long())
    return (smooth < level).view(count, rows, columns)


def _uniform(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _places(rows: int, columns: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Middles of the cells, y [h,1] and x [1,w] in (0, 1)."""
    y, x = ((torch.arange(cells, device=generator.device) + 0.5) / cells for cells in (rows, columns))
    return y[:, None], x[None]
