"""Pictures larger than memory allows, through a network tile by tile, as if it saw the whole.

Convolutions need no more than a halo around each tile. Two things look at the whole
map: the mean and variance of a GroupNorm, and the keys of an attention. Each tile
notes what they met on its own area, and normalises with, and attends to, what the
notes of all tiles so far come to. A tile that comes again replaces its notes, so
several passes draw near to what the whole network would have met, first layers first;
then the notes are left as they are, and one more pass makes the result. All its tiles
use the same numbers, so that they meet without a seam.

An attention keeps as many keys as a tile has pixels, taken evenly from the whole map:
memory is that of one tile. Torch's functions are watched, not modules, so the network
is not touched, and one that calls `group_norm` or `scaled_dot_product_attention` in
its own way is served as well.
"""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ldmctl.training.allocator import returning_blocks

HALO = 8  # cells on each side of a tile that are computed and thrown away
PASSES = 5  # before the one whose result is kept: small trained networks stood still after 3, random ones after 5 or 6

Network = Callable[[Tensor], Tensor]


class Span(NamedTuple):
    """A tile along one axis, in cells: it sees `start` to `stop` and answers for `first` to `last`."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def length(self) -> int:
        """How many cells it sees."""
        return self.stop - self.start

    def seen(self, scale: int) -> slice:
        """What it sees of the whole axis at `scale` pixels per cell."""
        return slice(self.start * scale, self.stop * scale)

    def own(self, scale: int) -> slice:
        """What it answers for, counted from its own start."""
        return slice((self.first - self.start) * scale, (self.last - self.start) * scale)

    def answered(self, scale: int) -> slice:
        """What it answers for, counted from the start of the whole axis."""
        return slice(self.first * scale, self.last * scale)


class Tile(NamedTuple):
    """A rectangle of the picture: one span along each axis."""

    down: Span
    right: Span

    def scale(self, height: int, width: int) -> int:
        """Pixels per cell along each side of a map that this tile computed; 0 for what is no such map."""
        scale = height // self.down.length
        return scale if (height, width) == (self.down.length * scale, self.right.length * scale) else 0

    def seen(self, x: Tensor, scale: int) -> Tensor:
        """The whole [B,C,H,W] -> what this tile sees of it."""
        return x[..., self.down.seen(scale), self.right.seen(scale)]

    def own(self, x: Tensor) -> Tensor:
        """[..., H, W] as this tile computed it -> what it answers for."""
        scale = self.scale(x.shape[-2], x.shape[-1])
        return x[..., self.down.own(scale), self.right.own(scale)]


def spans(length: int, side: int, halo: int) -> list[Span]:
    """Tiles of `side` cells along `length`; they answer for parts side by side, each `halo` or more away from where its tile was cut."""
    if length <= side:
        return [Span(0, length, 0, length)]
    count = math.ceil((length - side) / (side - 2 * halo)) + 1
    starts = [round(index * (length - side) / (count - 1)) for index in range(count)]
    bounds = [0, *((start + side + after) // 2 for start, after in pairwise(starts)), length]
    return [Span(start, start + side, *bounds[index : index + 2]) for index, start in enumerate(starts)]


@torch.no_grad()
def tiled(network: Network, x: Tensor, *, cells: tuple[int, int], side: int, halo: int = HALO, passes: int = PASSES) -> Tensor:
    """network(x) for x [B,C,H,W], at most side x side cells at a time; a picture that is no larger takes one plain call.

    `cells` is the latent's (height, width): the picture has equally many pixels per
    cell along both sides, and so has the result. `side` is more than twice `halo`.
    """
    tiles = [Tile(down, right) for down in spans(cells[0], side, halo) for right in spans(cells[1], side, halo)]
    if len(tiles) == 1:
        return network(x)
    scale = x.shape[-1] // cells[1]
    whole = Whole(stride=math.ceil(math.sqrt(cells[0] * cells[1]) / side))
    mixed = random.Random(0).sample(tiles, len(tiles))  # neighbours are alike: mixed, the first notes already speak of the whole
    result: Tensor | None = None
    with returning_blocks(x.device):
        for tile in mixed * passes:
            whole.run(network, tile.seen(x, scale), tile)
            if not whole.notes:  # convolutions alone
                break
        whole.freeze()
        for tile in tiles:
            part = whole.run(network, tile.seen(x, scale), tile)
            made = tile.scale(part.shape[-2], part.shape[-1])
            if result is None:
                result = part.new_empty(*part.shape[:2], cells[0] * made, cells[1] * made)
            result[..., tile.down.answered(made), tile.right.answered(made)] = tile.own(part)
    assert result is not None
    return result


class Whole(TorchFunctionMode):
    """What the GroupNorms and attentions of a network meet on the whole picture, noted tile by tile.

    They are told apart by the order in which the network calls them.
    """

    def __init__(self, *, stride: int):
        super().__init__()
        self.stride = stride  # between the rows and columns of a map whose keys are kept
        self.notes: dict[int, dict[Tile, tuple[Tensor, Tensor]]] = {}
        self.frozen: dict[int, tuple[Tensor, Tensor]] | None = None

    def run(self, network: Network, x: Tensor, tile: Tile) -> Tensor:
        """network(x) for what this tile sees."""
        self.tile, self.calls = tile, 0
        with self:
            made = network(x)
        for notes in self.notes.values():  # made between its maps, where few bytes that stay would keep the room from being used again
            if tile in notes:
                first, second = notes[tile]
                notes[tile] = first.clone(), second.clone()
        return made

    def freeze(self) -> None:
        """From now on every tile uses what is known and notes nothing."""
        self.frozen = {call: self._sum_up(call) for call in self.notes}
        self.notes = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch calls this in place of every function of a tensor."""
        if func is F.group_norm:
            return self._group_norm(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _group_norm(
        self, x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        """[B,C,H,W] or [B,C,H*W], normalised with the mean and variance [B,groups] of the whole map."""
        found = self._map(x) if x.dim() == 3 else x
        if found is None or found.dim() != 4 or not self.tile.scale(found.shape[-2], found.shape[-1]):
            return F.group_norm(x, num_groups, weight, bias, eps)
        mean, variance = self._known(lambda: _moments(self.tile.own(found).float().unflatten(1, (num_groups, -1))))
        each = x.shape[1] // num_groups
        scale = (variance + eps).rsqrt().repeat_interleave(each, 1)
        shift = -mean.repeat_interleave(each, 1) * scale
        if weight is not None:
            scale, shift = scale * weight, shift * weight
        if bias is not None:
            shift = shift + bias
        shape = (*scale.shape, *[1] * (x.dim() - 2))
        return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype if weight is None else weight.dtype)

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
        """[B,heads,H*W,D] three times -> [B,heads,H*W,D], attending to the kept keys of the whole map."""
        if query.shape[-2] == key.shape[-2] and self._map(key.mT) is not None and not rest and named.get("attn_mask") is None:
            key, value = self._known(lambda: (self._kept(key), self._kept(value)))
        return F.scaled_dot_product_attention(query, key, value, *rest, **named)

    def _known(self, note: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """What is known of the next call, after this tile's note."""
        call, self.calls = self.calls, self.calls + 1
        if self.frozen is not None:
            return self.frozen[call] if call in self.frozen else note()
        self.notes.setdefault(call, {})[self.tile] = note()
        return self._sum_up(call)

    def _sum_up(self, call: int) -> tuple[Tensor, Tensor]:
        """Mean and variance over all tiles, or all their keys and values."""
        notes = self.notes[call]
        first, second = (list(each) for each in zip(*notes.values(), strict=True))
        if first[0].dim() > 2:
            return torch.cat(first, -2), torch.cat(second, -2)
        areas = [(tile.down.last - tile.down.first) * (tile.right.last - tile.right.first) for tile in notes]
        shares = torch.tensor(areas, dtype=torch.float32, device=first[0].device).view(-1, 1, 1) / sum(areas)
        means = torch.stack(first)
        mean = (shares * means).sum(0)
        return mean, (shares * (torch.stack(second) + (means - mean).square())).sum(0)  # within tiles, and between them

    def _kept(self, rows: Tensor) -> Tensor:
        """[B,heads,H*W,D] of a tile -> those of its own area that stand on the grid of kept keys."""
        found = self._map(rows.mT)
        assert found is not None
        scale = self.tile.scale(found.shape[-2], found.shape[-1])
        down, right = ((self.stride // 2 - span.first * scale) % self.stride for span in self.tile)
        return self.tile.own(found)[..., down :: self.stride, right :: self.stride].flatten(-2).mT.contiguous()

    def _map(self, rows: Tensor) -> Tensor | None:
        """[..., H*W] -> [..., H, W] if it can be a map of this tile."""
        height, width = self.tile.down.length, self.tile.right.length
        scale = math.isqrt(rows.shape[-1] // (height * width))
        return rows.unflatten(-1, (height * scale, width * scale)) if scale and height * width * scale**2 == rows.shape[-1] else None


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """[B,groups,*,H,W] -> mean and variance [B,groups]."""
    variance, mean = torch.var_mean(x, dim=(2, 3, 4), correction=0)
    return mean, variance
