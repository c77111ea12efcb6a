"""Captions, by words learned from them and a small transformer trained along: nothing published is needed.

Each word is heard with all others of its caption (an encoder as in Vaswani et al. 2017, normalised before each part), and the denoiser
hears every word, and the whole as one vector. A new encoder says words and places alone, since its blocks add nothing yet.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from ldmctl.blocks import SwiGLU, gated_width, run_block
from ldmctl.config import PluginConfig
from ldmctl.protocols import Condition

from . import _bytes
from ._learned import Learned, characters
from ._pooled import masked_mean

TOGETHER = 1024  # texts that the tokenizer is given at once: what it says of them takes room


class Words(nn.Module):
    listens = "text"
    kept = False  # ids are made faster than they are read
    map_channels = 0

    class Config(PluginConfig):
        vocabulary: int = Field(2048, ge=_bytes.SMALLEST, le=32_000, description="words at most, bytes included; few captions give fewer")
        lower: bool = Field(True, description="take upper and lower case for the same")
        length: int = Field(64, ge=3, description="words of a caption that are heard, its begin and end included")
        width: PositiveInt = Field(128, description="length of a word's vector")
        depth: PositiveInt = Field(2, description="layers of the transformer")
        heads: PositiveInt = Field(4, description="heads of its attention")
        dropout: float = Field(0.0, ge=0, lt=1, description="share of numbers set to 0 in training, after each part of a layer")
        dim: PositiveInt = Field(128, description="length of the vector of a whole caption")

        @model_validator(mode="after")
        def _heads_divide(self) -> "Words.Config":
            if self.width % self.heads:
                raise ValueError(f"heads={self.heads} does not divide width={self.width}")
            return self

    def __init__(self, config: Config, *, fitted: Mapping[str, Any] | None = None):
        super().__init__()
        self.config, self.merges = config, list((fitted or {"merges": []})["merges"])
        self.vector_dim, self.token_dim = config.dim, config.width
        self.words = nn.Embedding(len(_bytes.words(self.merges)), config.width)
        self.places = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList([Block(config.width, heads=config.heads, dropout=config.dropout) for _ in range(config.depth)])
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.to_vector = nn.Linear(config.width, config.dim)
        self.register_buffer("empty", torch.tensor([[_bytes.BEGIN, _bytes.END]]))
        self.learned = Learned()  # no parameters: not saved and not trained with the rest

    @classmethod
    def fit(cls, config: Config, captions: Iterable[str]) -> dict[str, Any]:
        """The vocabulary of the training captions, as a header keeps it."""
        return {"merges": _bytes.learn(map(characters, captions), vocabulary=config.vocabulary, lower=config.lower)}

    @cached_property
    def tokenizer(self) -> Any:
        """From a text to ids."""
        return _bytes.tokenizer(self.merges, lower=self.config.lower)

    @property
    def fingerprint(self) -> str:
        """A hash of what ids depend on."""
        said = [self.merges, self.config.lower, self.config.length, self.learned.stamp()]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def prepare(self, texts: Sequence[str], device: Any = None) -> list[dict[str, Tensor]]:
        """Texts -> {"ids": int16 [n]} of each, from 2, begin and end, to `length`."""
        pieces = (texts[start : start + TOGETHER] for start in range(0, len(texts), TOGETHER))
        heard = (ids[: self.config.length - 2] for piece in pieces for ids in self._ids(piece))
        return [{"ids": torch.tensor([_bytes.BEGIN, *ids, _bytes.END], dtype=torch.int16)} for ids in heard]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each text the ids of all its words, without marks."""
        if self.learned.words:
            return [[number for number, _ in self._tokens(text)] for text in texts]
        return [said.ids for said in self.tokenizer.encode_batch_fast([characters(text) for text in texts])]

    def cut(self, text: str) -> str:
        """The end of a text that is not heard because it is too long."""
        unheard = self._tokens(text)[self.config.length - 2 :]
        return text[unheard[0][1] :].strip() if unheard else ""

    def word_vectors(self, text: str) -> Tensor:
        """What the words of a text [n,width] are before anything is heard of them, for a learned word to begin with."""
        ids = [number for number, _ in self._tokens(text)]
        return self.words(torch.tensor(ids, dtype=torch.long, device=self.empty.device)).detach().clone()

    def with_word(self, word: str, vectors: Tensor) -> None:
        """Hear vectors [n,width] wherever a text says `word`; all else stays, bit for bit. Gradients reach them where they want some."""
        self.learned.add(word, vectors)

    def _tokens(self, text: str) -> list[tuple[int, int]]:
        """(id, where it begins in the text) of every word; learned words have the ids behind the vocabulary."""
        tokens: list[tuple[int, int]] = []
        for start, part in self.learned.split(text):
            if part in self.learned.words:
                tokens += [(self.words.num_embeddings + number, start) for number in self.learned.numbers(part)]
            else:
                said = self.tokenizer.encode(part)
                tokens += [(number, start + place[0]) for number, place in zip(said.ids, said.offsets, strict=True)]
        return tokens

    def encode(self, given: Mapping[str, Tensor]) -> Condition:
        """ids [B,N] and mask bool [B,N], True where there is a word -> tokens [B,N,width], their mask, and a vector [B,dim]."""
        ids, mask = (given[name].to(self.empty.device) for name in ("ids", "mask"))
        places = torch.arange(ids.shape[1], device=ids.device).clamp_max(self.config.length - 1)  # padding may reach further than a text
        tokens = self.learned.looked_up(self.words, ids.long()) + self.places(places)
        for block in self.blocks:
            tokens = block(tokens, mask)
        tokens = self.norm(tokens) * mask[:, :, None]
        return Condition(vector=self.to_vector(masked_mean(tokens, mask)), tokens=tokens, mask=mask)

    def null(self, count: int) -> Condition:
        """`count` times what an empty caption says."""
        said = self.encode({"ids": self.empty, "mask": torch.ones_like(self.empty, dtype=torch.bool)})
        return Condition(*(part if part is None else part.expand(count, *part.shape[1:]) for part in said))


class Block(nn.Module):
    """Attention between the words of a caption, then a SwiGLU, each added to what it was given, and 0 when new."""

    checkpointing = False

    def __init__(self, width: int, *, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.mlp = SwiGLU(width, gated_width(width, 4))
        for last in (self.to_out, self.mlp.proj_out):
            nn.init.zeros_(last.weight)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens [B,N,width], mask bool [B,N] -> [B,N,width]."""
        return run_block(self, self._tokens, tokens, mask)

    def _tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self.to_qkv(self.norm_1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        tokens = tokens + self.dropout(self.to_out(mixed.transpose(1, 2).flatten(2)))
        return tokens + self.dropout(self.mlp(self.norm_2(tokens)))
