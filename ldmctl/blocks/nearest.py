"""The nearest of many codes, searched by matrix products in tiles small enough for a processor's cache.

|x - e|^2 = |x|^2 + 2 (|e|^2 / 2 - x e), so the smallest |e|^2 / 2 - x e decides: one product of [-e, |e|^2 / 2] and [x, 1]
per tile. Codes stand along the rows of a tile and features along its columns: a minimum over blocks of codes then runs over
whole vectors of features, many times faster than an argmin along codes, and the argmin is left with few numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 32  # codes whose scores are first reduced to their minimum
NARROWEST = 64  # features in a tile, whatever the number of codes: narrower products are slow
CPU_TILE = (
    2**21
)  # scores held at a time: 8 MiB; a quarter is as fast on idle cores, but slower on busy ones, where threads wait at each product
TILE = 2**24  # on accelerators: 64 MiB, so that launching kernels is not what takes the time


def nearest_codes(features: Tensor, codes: Tensor, *, tile: int | None = None) -> Tensor:
    """features [N,c] and codes [K,c] -> int64 [N], the codes at the smallest distance and of equals the first.

    In float32 under any autocast. `tile` is how many scores are held at a time, by default what the device likes.
    """
    if tile is None:
        tile = CPU_TILE if features.device.type == "cpu" else TILE
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        return _search(features.detach().float(), codes.detach().float(), width_of(len(codes), tile))


def width_of(codes: int, tile: int) -> int:
    """How many features are compared with so many codes at a time."""
    return max(NARROWEST, tile // codes)


@torch.library.custom_op("ldmctl::nearest_codes", mutates_args=())  # a compiler takes it as it is: its loop would be unrolled
def _search(features: Tensor, codes: Tensor, width: int) -> Tensor:
    count = len(codes)
    centre = codes.mean(0)  # taken off both, or digits cancel where codes are far from zero and near each other
    codes = codes - centre
    table = torch.cat([-codes, codes.square().sum(1, keepdim=True) / 2], dim=1)
    table = torch.cat([table, table[-1:].expand(-count % BLOCK, -1)])
    columns = F.pad((features - centre).T, (0, 0, 0, 1), value=1.0)
    found = torch.empty(len(features), dtype=torch.int64, device=features.device)
    scores = features.new_empty(len(table) * min(width, len(features)))
    for first in range(0, len(features), width):
        part = columns[:, first : first + width]
        tile = scores[: len(table) * part.shape[1]].view(len(table), -1)
        blocks = torch.mm(table, part, out=tile).view(-1, BLOCK, part.shape[1])
        block = blocks.amin(1).argmin(0)
        inside = blocks.gather(0, block.expand(1, BLOCK, -1))[0].argmin(0)
        torch.add(inside, block, alpha=BLOCK, out=found[first : first + width])
    return found.clamp_(max=count - 1)  # the last code fills its block up


@_search.register_fake
def _(features: Tensor, codes: Tensor, width: int) -> Tensor:
    return features.new_empty(len(features), dtype=torch.int64)
