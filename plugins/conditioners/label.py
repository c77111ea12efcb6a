"""A learned vector for each class, and one more for "no class"."""

from collections.abc import Sequence

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition


class Label(nn.Module):
    listens = "label"
    token_dim = 0
    map_channels = 0

    class Config(PluginConfig):
        dim: PositiveInt = Field(128, description="length of a class's vector")

    def __init__(self, config: Config, *, classes: list[str]):
        super().__init__()
        if not classes:
            raise PluginError("The conditioner 'label' needs a data set with classes, and this one has none: train without a conditioner.")
        self.vector_dim = config.dim
        self.unknown = len(classes)
        self.embedding = nn.Embedding(len(classes) + 1, config.dim)  # the last row is "no class"

    def encode(self, given: Tensor | Sequence[int]) -> Condition:
        """Indices of classes [B], -1 where unknown -> their vectors [B,dim]."""
        labels = torch.as_tensor(given, dtype=torch.int64)
        if labels.device.type == "cpu" and (labels >= self.unknown).any():  # on an accelerator, looking would wait for it
            raise PluginError(f"Label {int(labels.max())} does not exist: there are {self.unknown} classes, counted from 0.")
        labels = labels.to(self.embedding.weight.device)
        return Condition(vector=self.embedding(labels.where(labels >= 0, self.unknown)))

    def null(self, count: int) -> Condition:
        """`count` times the vector of "no class"."""
        rows = torch.full(
            (count,), self.unknown, device=self.embedding.weight.device
        )  # made there: nothing is waited for in a training step
        return Condition(vector=self.embedding(rows))
