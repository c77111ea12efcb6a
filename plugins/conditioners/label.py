"""A learned vector for each class, and one more for "no class"."""

from collections.abc import Sequence

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition

from ._learned import Learned


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
        self.classes = list(classes)
        self.unknown = len(classes)
        self.embedding = nn.Embedding(len(classes) + 1, config.dim)  # the last row is "no class"
        self.learned = Learned()  # no parameters: not saved and not trained with the rest

    def encode(self, given: Tensor | Sequence[int]) -> Condition:
        """Indices of classes [B], those of learned ones behind the others, -1 where unknown -> their vectors [B,dim]."""
        labels, count = torch.as_tensor(given, dtype=torch.int64), self.unknown + len(self.learned.words)
        if labels.device.type == "cpu" and (labels >= count).any():  # on an accelerator, looking would wait for it
            raise PluginError(f"Label {int(labels.max())} does not exist: there are {count} classes, counted from 0.")
        labels = labels.to(self.embedding.weight.device)
        rows = labels + (labels >= self.unknown) if self.learned.words else labels  # the row of "no class" lies between
        return Condition(vector=self.learned.looked_up(self.embedding, rows.where(labels >= 0, self.unknown)))

    def word_vectors(self, text: str) -> Tensor:
        """The vector [1,dim] of the class of this name, [0,dim] without one, for a learned class to begin with."""
        rows = [index for index, name in enumerate(self.classes) if name == text]
        return self.embedding.weight[rows].detach().clone()

    def with_word(self, word: str, vectors: Tensor) -> None:
        """Know a class by its vector [1,dim], with an index behind the others; all else stays, bit for bit. A gradient reaches it where it wants one."""
        self.learned.add(word, vectors)

    def null(self, count: int) -> Condition:
        """`count` times the vector of "no class"."""
        rows = torch.full(
            (count,), self.unknown, device=self.embedding.weight.device
        )  # made there: nothing is waited for in a training step
        return Condition(vector=self.embedding(rows))
