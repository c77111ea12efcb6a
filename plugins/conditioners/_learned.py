"""Words and classes that were learned from a few pictures, as vectors beside a table of known ones (textual inversion, arXiv:2208.01618)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Learned:
    """Learned words, or classes, by name; the rows of all stand one behind the other, so that a number finds its row."""

    def __init__(self) -> None:
        self.words: dict[str, Tensor] = {}

    def add(self, word: str, vectors: Tensor) -> None:
        """Take vectors [n,D] for a word from now on; gradients reach them where they want some."""
        self.words[word] = vectors

    def numbers(self, word: str) -> list[int]:
        """Numbers of a word's rows."""
        start = 0
        for name, vectors in self.words.items():
            if name == word:
                return list(range(start, start + len(vectors)))
            start += len(vectors)
        raise KeyError(word)

    def rows(self) -> Tensor:
        """Every row [N,D]."""
        return torch.cat(list(self.words.values()))

    def looked_up(self, table: nn.Embedding, numbers: Tensor) -> Tensor:
        """Rows [...,D] by their numbers [...]: those of a table, and behind them the learned ones."""
        if not self.words:
            found: Tensor = table(numbers)
            return found
        behind = numbers - table.num_embeddings
        own = self.rows().to(numbers.device)[behind.clamp_min(0)]
        return torch.where((behind < 0)[..., None], table(numbers.clamp_max(table.num_embeddings - 1)), own)

    def split(self, text: str) -> Iterator[tuple[int, str]]:
        """(start, part) of a text, each part one learned word or what lies between; the longer of two words is seen first."""
        text = characters(text)
        if not self.words:
            yield 0, text
            return
        longest_first = sorted(self.words, key=len, reverse=True)
        start = 0
        for part in re.split(f"({'|'.join(map(re.escape, longest_first))})", text):
            if part:
                yield start, part
            start += len(part)

    def stamp(self) -> str:
        """A hash of the words and their vectors, "" of none."""
        if not self.words:
            return ""
        values = [(word, vectors.detach().cpu().float().tolist()) for word, vectors in sorted(self.words.items())]
        return hashlib.sha256(repr(values).encode()).hexdigest()


def characters(text: str) -> str:
    """The text with question marks for halves of surrogate pairs, which a file of captions may hold and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
