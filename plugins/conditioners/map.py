"""A map drawn over the picture: how much of each latent cell each class takes, or the mean of edges, depth or colours.

Cells are averages and no samples, so a thin line or a small thing is still told, and a border says how it cuts its cell. One
more channel says that there is no map at all, which is not the same as a map without any of the classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.errors import DataError
from ldmctl.protocols import Condition

UNLABELLED = 255  # the class number of pixels that belong to no class


class Map(nn.Module):
    listens = "map"
    vector_dim = 0
    token_dim = 0

    class Config(PluginConfig):
        pass

    def __init__(self, config: Config, *, maps: Mapping[str, Any], factor: int, size: Sequence[int] = (1, 1)):
        super().__init__()
        self.classes, self.factor, self.size = list(maps["classes"]), factor, tuple(size)
        self.map_channels = (len(self.classes) or maps["channels"]) + 1
        absent = torch.zeros(self.map_channels, 1, 1)
        absent[-1] = 1
        self.register_buffer("absent", absent, persistent=False)

    def encode(self, given: Tensor) -> Condition:
        """Maps uint8 [B,K,H,W] -> [B,map_channels,ceil(H/factor),ceil(W/factor)]: shares in [0, 1] of classes, means in [-1, 1] of the rest."""
        if given.shape[1] != (expected := 1 if self.classes else self.map_channels - 1):
            raise DataError(f"A map has {given.shape[1]} channels, and this model was made for maps of {expected}.")
        given = given.to(self.absent.device)
        cells = self._occupancy(given[:, 0]) if self.classes else F.avg_pool2d(given / 127.5 - 1, self.factor, ceil_mode=True)
        return Condition(maps=F.pad(cells, (0, 0, 0, 0, 0, 1)))

    def null(self, count: int, *, size: tuple[int, int] | None = None) -> Condition:
        """`count` times "no map"."""
        return Condition(maps=self.absent.expand(count, -1, *(size or self.size)))

    def _occupancy(self, numbers: Tensor) -> Tensor:
        """Class numbers uint8 [B,H,W] -> the share of each class [B,n,h,w] in the pixels of a cell; a cell at the edge may have fewer."""
        n = len(self.classes)
        if numbers.device.type == "cpu" and (wrong := (numbers >= n) & (numbers != UNLABELLED)).any():  # elsewhere, looking would wait
            raise DataError(
                f"A map has class {int(numbers[wrong].max())}, and there are {n} classes, counted from 0: {', '.join(self.classes[:20])}."
                f" Pixels of no class have {UNLABELLED}."
            )
        rows, columns = (-(-side // self.factor) for side in numbers.shape[1:])
        missing = (0, columns * self.factor - numbers.shape[2], 0, rows * self.factor - numbers.shape[1])
        index = F.pad(numbers.long().clamp_max(n), missing, value=n + 1)  # n: no class, n + 1: no pixel
        index = index.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).transpose(2, 3).flatten(3)
        counts = torch.zeros(len(index), rows, columns, n + 2, device=index.device)
        counts.scatter_add_(3, index, torch.ones_like(index, dtype=counts.dtype))
        return (counts[..., :n] / counts[..., : n + 1].sum(3, keepdim=True)).permute(0, 3, 1, 2)
