"""A text encoder of transformers that reads texts: every layer of every kind by the same two calls.

Texts of the same number of tokens are read together and never padded, so none is changed by its neighbours, and encoders that do not
hide padding, or want it on the left, are right too. SigLIP's alone were trained with padding in view, and get it as they know it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from ldmctl.errors import ConfigError, MissingError, one_line

from ._encoders import WITHOUT
from ._learned import Learned, characters

PADDED = ("siglip_text_model", "siglip2_text_model")
TOGETHER = 4096  # tokens in one call
UNHEARD = ("pooler", "head.")  # parts behind the last layer, which need no weights
FOREIGN = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)


class Reader:
    """Tokens, and what a frozen encoder makes of them: in float32 on a CPU, in bfloat16 on a device that has it."""

    def __init__(self, folder: Path, device: str):
        self.folder, self.device = folder, torch.device(device)
        self.kind, self.config, self.tokenizer = _described(folder)

    @cached_property
    def model(self) -> Any:
        """The encoder, opened when the first text is read."""
        half = self.device.type != "cpu" and (self.device.type != "cuda" or torch.cuda.is_bf16_supported())
        model = _weighted(self.folder, self.kind, self.config, torch.bfloat16 if half else torch.float32)
        return model.to(self.device).eval().requires_grad_(False)

    def read(self, texts: Sequence[str], *, layer: int, length: int, learned: Learned | None = None) -> list[Tensor]:
        """Texts -> vectors of their tokens, float32 [n,D], each of mean square 1; n from 1 to `length`. On the CPU, unless
        gradients are to reach learned words."""
        learned = learned or Learned()
        rows = [self.ids(text, length, learned) for text in texts]
        self._refuse_beyond(max(map(max, rows), default=0))
        learning = torch.is_grad_enabled() and any(vectors.requires_grad for vectors in learned.words.values())
        alike: dict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            alike[len(row)].append(index)
        read: dict[int, Tensor] = {}
        for size, members in alike.items():
            for start in range(0, len(members), max(1, TOGETHER // size)):
                chunk = members[start : start + max(1, TOGETHER // size)]
                ids = torch.tensor([rows[index] for index in chunk], device=self.device)
                with torch.set_grad_enabled(learning), self._embedding(ids, learned):
                    said = self.hidden(ids.clamp_min(0), layer=layer)
                read |= dict(zip(chunk, said if learning else said.cpu(), strict=True))
        return [read[index] for index in range(len(texts))]

    def hidden(self, ids: Tensor, *, layer: int) -> Tensor:
        """ids [B,n] -> vectors of a layer, float32 [B,n,D], each of mean square 1."""
        layers = self.config.num_hidden_layers
        if not -layers <= layer + 1 <= 0:
            raise ConfigError(f"conditions.text.layer={layer} is none of this encoder, which has {layers}: take -1 to {-layers - 1}.")
        padding = self.room() - ids.shape[1] if self.config.model_type in PADDED else 0
        given = F.pad(ids, (0, padding), value=self.tokenizer.pad_token_id or 0)
        said = self.model(input_ids=given, output_hidden_states=layer != -1, return_dict=True)
        vectors = (said.last_hidden_state if layer == -1 else said.hidden_states[layer])[:, : ids.shape[1]].float()
        return F.rms_norm(vectors, vectors.shape[-1:], eps=1e-12)

    def _refuse_beyond(self, number: int) -> None:
        """A MissingError where a tokenizer has a token that the encoder has no vector for: it is another encoder's."""
        if number >= (known := self.model.get_input_embeddings().weight.shape[0]):
            raise MissingError(
                f"The tokenizer in {self.folder} is not that of its weights: it has a token {number}, and they know {known}, counted from 0.\n"
                f"Ways out:\n  save the tokenizer of these weights into it\n  or another folder in conditions.text.encoder\n  or {WITHOUT}"
            )

    def word_vectors(self, text: str) -> Tensor:
        """What the tokens of a text [n,D'] are before the first layer, float32, without marks."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        with torch.no_grad():
            return self.model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=self.device)).float()

    def ids(self, text: str, length: int, learned: Learned) -> list[int]:
        """Numbers of a text's tokens with the tokenizer's own marks, `length` at most and one at least; of learned words -1, -2, ..."""
        most = min(length, self.room())
        if any(word in text for word in learned.words):
            return self._marked([number for number, _ in self._tokens(text, learned)], most)
        ids = self.tokenizer(characters(text), truncation=True, max_length=most, verbose=False)["input_ids"]
        marks = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, 0)
        return ids or [next(mark for mark in marks if mark is not None)]

    def cut(self, text: str, length: int, learned: Learned) -> str:
        """The end of a text that `length` tokens with marks leave out; "" where all is heard."""
        room = min(length, self.room()) - self.tokenizer.num_special_tokens_to_add()
        unheard = self._tokens(text, learned)[room:]
        return text[unheard[0][1] :].strip() if unheard else ""

    def _tokens(self, text: str, learned: Learned) -> list[tuple[int, int]]:
        """(number, where it begins in the text) of every token, without marks."""
        tokens: list[tuple[int, int]] = []
        for start, part in learned.split(text):
            if part in learned.words:
                tokens += [(-1 - number, start) for number in learned.numbers(part)]
                continue
            heard = part.rstrip() if learned.words else part  # a blank before a learned word is no token
            said = self.tokenizer(heard, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            tokens += [(number, start + place[0]) for number, place in zip(said["input_ids"], said["offset_mapping"], strict=True)]
        return tokens

    def _marked(self, ids: list[int], most: int) -> list[int]:
        """As many tokens as there is room for, between the marks that the tokenizer sets around any text."""
        bare, marked = (self.tokenizer("a", add_special_tokens=marks, verbose=False)["input_ids"] for marks in (False, True))
        before = next(place for place in range(len(marked)) if marked[place : place + len(bare)] == bare)
        first, last = marked[:before], marked[before + len(bare) :]
        return [*first, *ids[: most - len(first) - len(last)], *last]

    @contextmanager
    def _embedding(self, ids: Tensor, learned: Learned) -> Iterator[None]:
        """Inside, the encoder's table of words gives learned vectors where ids [B,n] are below 0; the table stays as it is."""
        if not (ids < 0).any():
            yield
            return
        rows = learned.rows().to(self.device)

        def said(module: Any, given: Any, table: Tensor) -> Tensor:
            own = F.pad(ids, (0, table.shape[1] - ids.shape[1]))
            return torch.where((own < 0)[:, :, None], rows[(-1 - own).clamp_min(0)].to(table.dtype), table)

        table = self.model.get_input_embeddings().weight
        alike = [module for module in self.model.modules() if getattr(module, "weight", None) is table]  # T5 has one table in two modules
        handles = [module.register_forward_hook(said) for module in alike]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def room(self) -> int:
        """How many tokens the encoder takes."""
        places = getattr(self.config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        return min(places, self.tokenizer.model_max_length)


@lru_cache(maxsize=2)
def reader(folder: Path, device: str) -> Reader:
    """The encoder of a complete folder on a device, opened once in a process."""
    return Reader(folder, device)


def _described(folder: Path) -> tuple[Any, Any, Any]:
    """(class of the encoder, its config, its tokenizer) of a folder."""
    try:
        import transformers
    except (ImportError, RuntimeError) as error:
        raise MissingError(
            f"Text encoders are run by transformers, which cannot be imported here: {one_line(error)}\n"
            f"Ways out:\n  pip install 'ldmctl[text]'\n  or {WITHOUT}"
        ) from None
    with _opening(folder):
        kind, config = _kind(transformers, transformers.AutoConfig.from_pretrained(folder, local_files_only=True))
        return kind, config, transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _weighted(folder: Path, kind: Any, config: Any, dtype: torch.dtype) -> Any:
    """The encoder with its weights, every one of them from the folder."""
    with _opening(folder):
        model, found = kind.from_pretrained(folder, config=config, dtype=dtype, local_files_only=True, output_loading_info=True)
    if lacking := sorted(name for name in found["missing_keys"] if not any(part in name for part in UNHEARD)):
        raise MissingError(
            f"The weights in {folder} are not those of a {kind.__name__}, which its config.json asks for: {lacking[0]} and "
            f"{len(lacking) - 1} more are missing.\nWays out:\n  another folder in conditions.text.encoder\n  or {WITHOUT}"
        )
    return model.get_encoder() if config.is_encoder_decoder and hasattr(model, "decoder") else model


def _kind(transformers: Any, config: Any) -> tuple[Any, Any]:
    """(class of the encoder, config) of what a folder describes; of a model of texts and pictures the half that reads."""
    encoding = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    text = config.get_text_config()
    cls = (
        encoding[type(text)]
        if type(text) in encoding
        else getattr(transformers, type(text).__name__.removesuffix("Config") + "Model", None)
    )
    if cls is None or cls.main_input_name != "input_ids":
        raise ConfigError(
            f"conditions.text.encoder names a model that reads no texts ({config.model_type}). CLIP, T5, BERT, SigLIP and language models do."
        )
    if hasattr(text, "use_cache"):
        text.use_cache = False
    return cls, text


@contextmanager
def _opening(folder: Path) -> Iterator[None]:
    """What transformers raises becomes a sentence with the ways out, and it says nothing else: no bars, no warnings."""
    from transformers.utils import logging as log

    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.ERROR)
    log.disable_progress_bar()
    try:
        yield
    except FOREIGN as error:
        raise MissingError(
            f"{folder} cannot be opened as a text encoder: {one_line(error)[:300]}\n"
            f"Ways out:\n  another folder, or a name on the hub, in conditions.text.encoder\n  or {WITHOUT}"
        ) from None
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
