"""A small classifier trained on the data's own labels in a minute, offline: what it looks at last is what pictures are compared by.

It knows what tells the classes apart and little of what does not. For digits and
garments, on which networks trained on photographs say little, it is the usual
judge; its numbers compare samples of one data set with each other, and with
nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ldmctl.blocks import check_channels
from ldmctl.config import PluginConfig
from ldmctl.errors import DataError

WIDTHS = (32, 64, 64, 64, 64, 64)  # of convolutions, each of which halves the picture
LAST = 4  # pixels that are left of a side at most
WEIGHT_DECAY = 1e-2


class Fitted(nn.Module):
    """Strided convolutions, a hidden layer whose output is the features, and a layer for the classes."""

    class Config(PluginConfig):
        size: int = Field(64, ge=8, le=256, description="pictures with a longer side are shrunk to this many pixels, by averaging")
        width: PositiveInt = Field(96, description="numbers per picture, D")
        steps: PositiveInt = Field(2000, description="optimizer steps of its training")
        batch: PositiveInt = Field(128, description="pictures per step")
        lr: PositiveFloat = Field(2e-3, description="learning rate at the top of its one cycle")
        shift: int = Field(2, ge=0, description="pixels that a batch is moved by at most")
        seed: int = Field(0, ge=0, description="of initial weights and order")

    def __init__(self, config: Config, *, image_channels: int, size: int, classes: Sequence[str] = (), encoder: Any = None):
        super().__init__()
        check_channels("fitted", image_channels)
        self.config, self.side = config, min(size, config.size)
        self.resize = f"{self.side}x{self.side}" + (" by averaging" if self.side < size else ", as they are")
        layers: list[nn.Module] = []
        channels, side = image_channels, self.side
        for width in WIDTHS:
            if layers and side <= LAST:
                break
            layers += [nn.Conv2d(channels, width, 3 if layers else 5, stride=2, padding=1 if layers else 2), nn.SiLU()]
            channels, side = width, (side + 1) // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, config.width), nn.SiLU())
        self.head = nn.Linear(config.width, len(classes))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B,C,size,size] -> features [B,D] float32."""
        return self.body(self._shrunk(image).float() / 255)

    def logits(self, features: Tensor) -> Tensor:
        """[B,D] -> [B,K]: how much each looks like each class."""
        return self.head(features)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Learn from pictures uint8 [B,C,size,size] and labels [B], -1 where unknown; a DataError without labels of two classes."""
        seen = [(self._shrunk(image).cpu(), label.cpu()) for image, label in batches]
        image = torch.cat([image for image, _ in seen]) if seen else torch.empty(0, 1, 1, 1)
        label = torch.cat([label for _, label in seen]) if seen else torch.empty(0, dtype=torch.long)
        image, label = image[label >= 0], label[label >= 0]
        if len(label.unique()) < 2:
            raise DataError(
                "The extractor fitted learns from labels, and these pictures have none of two classes or more. "
                "Take --extractor latent, which looks through the run's own autoencoder, or torchvision."
            )
        with torch.random.fork_rng(devices=[]), _one_thread():
            torch.manual_seed(self.config.seed)
            for module in self.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
            self._train(image, label)

    def _train(self, image: Tensor, label: Tensor) -> None:
        """AdamW, one cycle of the learning rate, each batch moved by up to `shift` pixels."""
        config, random = self.config, torch.Generator().manual_seed(self.config.seed)
        optimizer = torch.optim.AdamW(self.requires_grad_(True).parameters(), lr=config.lr, weight_decay=WEIGHT_DECAY)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps + 1)
        side, shift = self.side, config.shift
        padded = F.pad(image, (shift, shift, shift, shift))
        order = torch.empty(0, dtype=torch.long)
        for _ in range(config.steps):
            while len(order) < config.batch:
                order = torch.cat([order, torch.randperm(len(image), generator=random)])
            rows, order = order[: config.batch], order[config.batch :]
            top, left = torch.randint(0, 2 * shift + 1, (2,), generator=random).tolist()
            part = padded[rows, :, top : top + side, left : left + side].float() / 255
            F.cross_entropy(self.head(self.body(part)), label[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
        self.requires_grad_(False).eval()

    def _shrunk(self, image: Tensor) -> Tensor:
        """uint8 [B,C,H,W] -> uint8 [B,C,side,side], by averaging."""
        if image.shape[-1] == self.side:
            return image
        return F.adaptive_avg_pool2d(image.float(), self.side).round().to(torch.uint8)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread on a CPU whatever the environment says: how many there are decides how gradients are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
