"""Classes as one-hot vectors through one linear layer, whose bias alone means "no class"."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition


class Template(nn.Module):
    """A vector for each class."""

    listens = "label"  # or "text", "map", "picture", which have other contexts: see ldmctl.protocols.Conditioner
    token_dim = 0
    map_channels = 0

    class Config(PluginConfig):
        dim: PositiveInt = Field(128, description="length of a class's vector")

    def __init__(self, config: Config, *, classes: list[str]):
        super().__init__()
        if not classes:
            raise PluginError("This conditioner needs a data set with classes, and this one has none: train without a conditioner.")
        self.vector_dim = config.dim
        self.count = len(classes)
        self.linear = nn.Linear(self.count, config.dim)

    def encode(self, given: Tensor | Sequence[int]) -> Condition:
        """Indices of classes [B], -1 where unknown -> their vectors [B,dim]."""
        labels = torch.as_tensor(given, dtype=torch.int64).to(self.linear.weight.device)
        known = (labels >= 0)[:, None]
        return Condition(vector=self.linear(F.one_hot(labels.clamp_min(0), self.count) * known.to(self.linear.weight.dtype)))

    def null(self, count: int) -> Condition:
        """`count` times the vector of "no class", for dropout and guidance."""
        return self.encode([-1] * count)
