"""Captions, by a published text encoder that stays as it is, and a projection trained along.

Any text encoder of transformers will do: CLIP (arXiv:2103.00020), T5 (arXiv:1910.10683), BERT, MiniLM, SigLIP, or a language model such
as Gemma. It runs once over each caption. What is kept of a caption is the vector of every token, scaled to mean square 1, in 16 or 8
bits; padding is never kept. Nothing is lost by the scale, since tokens are normalised before they are projected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, NegativeInt, PositiveInt
from torch import Tensor, nn

from ldmctl.config import Place, PluginConfig
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition

from . import _encoders
from ._learned import Learned
from ._pooled import masked_mean
from ._reading import Reader, reader


class Text(nn.Module):
    listens = "text"
    map_channels = 0
    home: Path | None = None  # the folder in a run that holds a copy of the encoder
    renamed: str | None = None  # what the run calls it now, which may lie elsewhere since

    class Config(PluginConfig):
        encoder: str = Field(
            "sentence-transformers/all-MiniLM-L6-v2",
            min_length=1,
            description="folder of a text encoder with its tokenizer, or its name on the hub",
            json_schema_extra=Place,
        )
        layer: NegativeInt = Field(
            -1, description="whose output is heard: -1 is the last with the norm behind it, -2 the one before without"
        )
        length: int = Field(77, ge=3, description="tokens of a caption that are heard, or fewer if the encoder takes fewer; marks included")
        store: Literal["float16", "int8"] = Field("float16", description="how the numbers of a caption are kept")
        width: PositiveInt = Field(256, description="length of a token's vector, as the denoiser hears it")
        dim: PositiveInt = Field(128, description="length of the vector of a whole caption")

    def __init__(self, config: Config, *, fitted: Mapping[str, Any] | None):
        super().__init__()
        if fitted is None:
            raise PluginError("The conditioner 'text' is made of what its `fit` says of the encoder, and was given nothing.")
        self.config, self.encoder_sha256 = config, str(fitted["encoder"])
        self.vector_dim, self.token_dim = config.dim, config.width
        self.norm = nn.LayerNorm(fitted["width"])
        self.to_tokens = nn.Linear(fitted["width"], config.width)
        self.to_vector = nn.Linear(fitted["width"], config.dim)
        self.register_buffer("empty", torch.tensor(fitted["empty"], dtype=torch.float32)[None])
        self.learned = Learned()  # no parameters: not saved and not trained with the rest

    @classmethod
    def fit(cls, config: Config, captions: Iterable[str]) -> dict[str, Any]:
        """What a model must know of the encoder to be made without it: its hash, its width, and what it says of the empty text."""
        folder = _encoders.complete(_encoders.find(config.encoder))
        (row,) = reader(folder, "cpu").read([""], layer=config.layer, length=config.length)
        empty = unpacked(packed(row, config.store))
        return {"encoder": _encoders.digest(folder), "width": empty.shape[1], "empty": empty.tolist()}

    @property
    def files(self) -> Path:
        """The folder of the encoder, of the hash that the model was trained with."""
        return _encoders.complete(_encoders.find(self.config.encoder, self.renamed, copy=self.home, sha256=self.encoder_sha256))

    def find_named(self) -> Path:
        """The same by the name in the config alone; a MissingError where that is none, or another one."""
        return _encoders.find(self.config.encoder, sha256=self.encoder_sha256)

    @property
    def needed(self) -> list[Path]:
        """Those of its files that it is opened from."""
        return _encoders.needed(self.files)

    @property
    def fingerprint(self) -> str:
        """A hash of what prepared rows depend on, rounding apart, which is coarser on a device that computes in bfloat16."""
        said = f"{self.encoder_sha256} {self.config.layer} {self.config.length} {self.config.store} {self.learned.stamp()}"
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def about(self) -> dict[str, Any]:
        """What prepared rows are made by."""
        said = {"type": "text", "encoder": self.config.encoder, "sha256": self.encoder_sha256}
        return {**said, "layer": self.config.layer, "length": self.config.length, "store": self.config.store}

    def prepare(self, texts: Sequence[str], device: Any = None) -> list[dict[str, Tensor]]:
        """Texts -> of each {"tokens": float16 [n,D]}, or {"tokens": int8 [n,D], "scale": float32 [n,1]}, on the CPU.

        Where a word is being learned it is float32 on the device, and gradients go through the encoder to the word.
        """
        rows = self._reader(device).read(texts, layer=self.config.layer, length=self.config.length, learned=self.learned)
        learning = any(row.requires_grad for row in rows)
        return [{"tokens": row} if learning else packed(row, self.config.store) for row in rows]

    def cut(self, text: str) -> str:
        """The end of a text that is not heard because it is too long."""
        return self._reader().cut(text, self.config.length, self.learned)

    def word_vectors(self, text: str) -> Tensor:
        """What the encoder takes the tokens of a text for [n,D'] before its first layer, for a learned word to begin with."""
        return self._reader().word_vectors(text)

    def with_word(self, word: str, vectors: Tensor) -> None:
        """Hear vectors [n,D'] wherever a text says `word`; all else stays, bit for bit. Gradients reach them where they want some."""
        self.learned.add(word, vectors)

    def encode(self, given: Mapping[str, Tensor]) -> Condition:
        """What `prepare` gave, padded to [B,N,...], and mask bool [B,N] -> tokens [B,N,width], their mask, and a vector [B,dim]."""
        given = {name: value.to(self.empty.device) for name, value in given.items()}
        return self._condition(unpacked(given), given["mask"])

    def null(self, count: int) -> Condition:
        """`count` times what an empty text says."""
        said = self._condition(self.empty, torch.ones(self.empty.shape[:2], dtype=torch.bool, device=self.empty.device))
        return Condition(*(part if part is None else part.expand(count, *part.shape[1:]) for part in said))

    def _condition(self, heard: Tensor, mask: Tensor) -> Condition:
        normal = self.norm(heard)
        return Condition(self.to_vector(masked_mean(normal, mask)), self.to_tokens(normal) * mask[:, :, None], mask)

    def release(self) -> None:
        """Let go of the encoder, which `prepare` and `cut` keep in memory for their next call."""
        reader.cache_clear()

    def _reader(self, device: Any = None) -> Reader:
        return reader(self.files, str(device or "cpu"))


def packed(row: Tensor, store: str) -> dict[str, Tensor]:
    """Vectors of tokens float32 [n,D] as they are kept; 8 bits have a scale for each token, by which its largest number is 127."""
    if store == "float16":
        return {"tokens": row.half()}
    scale = row.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return {"tokens": (row / scale).round().to(torch.int8), "scale": scale}


def unpacked(kept: Mapping[str, Tensor]) -> Tensor:
    """What was packed, float32 [...,n,D]."""
    return kept["tokens"].float() * kept["scale"] if "scale" in kept else kept["tokens"].float()
