"""The picture made small, for models that make it large again (SR3, arXiv:2104.07636; cascades, arXiv:2106.15282).

It is laid over the latent by bicubic interpolation. Where a small picture has more pixels than the latent has cells, the pixels of
a cell lie in its channels, so that none is lost. One more channel says that there is no picture.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.protocols import Condition


class LowRes(nn.Module):
    listens = "picture"
    wants = "image"
    vector_dim = 0
    token_dim = 0

    class Config(PluginConfig):
        factor: Literal[2, 4, 8] = Field(4, description="how many times smaller the given picture is, in width and height")
        noise: NonNegativeFloat = Field(
            0.0,
            description="deviation, up to which each small picture gets noise in training, where pictures are in [-1, 1]; "
            "makes a model forgive pictures that were made small in other ways",
        )

    def __init__(
        self, config: Config, *, image_channels: int, factor: int, size: Sequence[int], channels: int | None = None, side: int | None = None
    ):
        super().__init__()
        self.smaller, self.noise, self.factor, self.size = config.factor, config.noise, factor, tuple(size)
        self.pixels = -(-factor // config.factor)  # of the small picture, along each side of a cell
        self.map_channels = image_channels * self.pixels**2 + 1
        absent = torch.zeros(self.map_channels, 1, 1)
        absent[-1] = 1
        self.register_buffer("absent", absent, persistent=False)

    def shrink(self, picture: Tensor) -> Tensor:
        """Pictures uint8 [B,C,H,W] -> uint8 [B,C,ceil(H/k),ceil(W/k)], bicubic with antialiasing, k being the key `factor`."""
        size = [-(-side // self.smaller) for side in picture.shape[2:]]
        return F.interpolate(picture.float(), size, mode="bicubic", antialias=True).round().clamp(0, 255).to(torch.uint8)

    def encode(self, given: Tensor) -> Condition:
        """Small pictures uint8 [B,C,hs,ws] -> maps [B,map_channels,h,w], about [-1, 1]."""
        small = given.to(self.absent.device) / 127.5 - 1
        if self.training and self.noise:
            level = self.noise * torch.rand(len(small), 1, 1, 1, device=small.device)  # conditioning augmentation, arXiv:2106.15282, 4.2
            small = small + level * torch.randn_like(small)
        size = [cells * self.pixels for cells in self._cells(small.shape[2], small.shape[3])]
        large = F.interpolate(small, size, mode="bicubic", align_corners=False)
        return Condition(maps=F.pad(F.pixel_unshuffle(large, self.pixels), (0, 0, 0, 0, 0, 1)))

    def null(self, count: int, *, size: tuple[int, int] | None = None) -> Condition:
        """`count` times "no picture"."""
        return Condition(maps=self.absent.expand(count, -1, *(size or self.size)))

    def _cells(self, rows: int, columns: int) -> tuple[int, int]:
        """(h, w) of the latent whose picture is given so small; of several that are possible the usual size."""
        usual = [-(-cells * self.factor // self.smaller) for cells in self.size]
        if [rows, columns] == usual:
            return self.size
        return -(-rows * self.smaller // self.factor), -(-columns * self.smaller // self.factor)
