"""Words and classes that were learned from a few pictures, each a small file, and a model's conditioners that are told of them.

A file holds `vectors` [n,D], which stand where the model would look a known word or class up, and in its header the name and which
conditioner it is for. The file of a model is not touched: who does not name the word gets what the model always made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.asking import Ask, parts_of
from ldmctl.diffusion.learnable import KINDS, Listener, listener, refuse_known
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.storage import headers, weights

KIND = "token"


class LearnedWord(NamedTuple):
    """One word, or class, as its file has it."""

    file: str  # as it was named
    word: str
    vectors: Tensor  # [n,D] float32, of a class [1,D]
    header: dict[str, Any]
    sha256: str  # of the file

    @property
    def slot(self) -> str:
        """What is asked for by it: text, or a label. Files from before there were classes do not say."""
        return str(self.header.get("listens", "text"))

    @property
    def kind(self) -> str:
        """Word, or class."""
        return KINDS[self.slot]


def read_word(file: str | Path) -> LearnedWord:
    """The word or class of a file that fit-token wrote; any other is a MismatchError."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise MismatchError(f"There is no file {file} with a learned word or class. `ldmctl fit-token --out {file}` makes one.")
    tensors, header = weights.load(path)
    if header.get("kind") != KIND:
        raise MismatchError(
            f"{file} holds no learned word or class, but {header.get('kind', 'something else')}. fit-token writes files of these."
        )
    headers.check(headers.Token, header, path)
    vectors = tensors.get("vectors")
    if vectors is None or vectors.ndim != 2 or not vectors.numel() or not bool(vectors.float().isfinite().all()):
        raise MismatchError(f"{file} is damaged: it should hold vectors of a word or class, all of them finite.")
    found = LearnedWord(str(file), header["word"], vectors.float(), header, weights.file_sha256(path))
    if found.slot == "label" and len(vectors) != 1:
        raise MismatchError(f"{file} is damaged: a class is one vector, and it holds {len(vectors)}.")
    return found


def refuse_other(word: LearnedWord, heard: Listener, run: str) -> None:
    """A MismatchError for a word or class that was learned for the conditioner of another model."""
    if any(word.header[key] != value for key, value in heard.known_by.items() if key != "listens"):
        other = "another text encoder" if heard.is_published else "another model, or another state of it,"
        verb = "hears" if heard.slot == "text" else "knows"
        raise MismatchError(
            f"{word.file} has the {word.kind} {word.word!r} as {other} {verb} it, so it means nothing to {run}. Learn it for this one: "
            f"ldmctl fit-token --run {run} --data FOLDER --word '{word.word}'"
        )
    if (width := heard.conditioner.word_vectors("a").shape[1]) != word.vectors.shape[1]:
        many = word.vectors.shape[1]
        raise MismatchError(f"{word.file} is damaged: its vectors have {many} numbers, and those of this model have {width}.")


class Vocabulary:
    """The conditioners of a network as they were trained, and copies of them that also know learned words or classes, each made once."""

    def __init__(self, network: Any, header: dict[str, Any], run: str):
        self.network, self.header, self.run = network, header, run
        self.plain = {slot: each for slot, each in network.conditioners.items() if slot in KINDS}
        self.files: dict[str, LearnedWord] = {}
        self.copies: dict[tuple[str, ...], Any] = {}

    def read(self, config: Sample) -> list[LearnedWord]:
        """What the files have that a config names; those that do not fit are a ConfigError or a MismatchError."""
        for file in config.token or []:
            if file not in self.files:
                word = read_word(file)
                heard = listener(self.plain, self.header, self.run, word.slot)
                refuse_other(word, heard, self.run)
                refuse_known(heard, word.word)
                self.files[file] = word
        words = [self.files[file] for file in config.token or []]
        refuse_twice(words)
        return words

    def hear(self, config: Sample) -> None:
        """Have the network know what the files have that a config names, and nothing else that was learned."""
        words = self.read(config)
        for slot in self.plain:
            self.network.hear_by(slot, self._copy(slot, [word for word in words if word.slot == slot]))

    def _copy(self, slot: str, words: Sequence[LearnedWord]) -> Any:
        """The conditioner of a slot that knows these words."""
        if not words:
            return self.plain[slot]
        key = tuple(word.sha256 for word in words)
        if key not in self.copies:
            self.copies[key] = copy.deepcopy(self.plain[slot])
            for word in words:
                self.copies[key].with_word(word.word, word.vectors.to(_device_of(self.plain[slot])))
        return self.copies[key]

    def header_for(self, config: Sample) -> dict[str, Any]:
        """The model's header, which learned classes that a config names stand in as the last of its `classes`, `added` of them."""
        added = [word.word for word in self.read(config) if word.slot == "label"]
        return {**self.header, "classes": [*self.header["classes"], *added], "added": len(added)} if added else self.header

    def said(self, asks: Iterable[Ask], config: Sample) -> list[LearnedWord]:
        """Of the words and classes that a config names, those that one of these asks is for."""
        if not (words := self.read(config)):
            return []
        asks, classes = list(asks), self.header_for(config)["classes"]
        texts = [part.words for ask in asks if ask.prompt for part in parts_of(ask.prompt)]
        labels = {classes[ask.label] for ask in asks if ask.label >= 0}
        return [word for word in words if (any(word.word in each for each in texts) if word.slot == "text" else word.word in labels)]


def refuse_twice(words: Sequence[LearnedWord]) -> None:
    """A ConfigError where two files have the same word, or one a word and the other a class of that name."""
    for place, word in enumerate(words):
        if twice := next((other for other in words[:place] if other.word == word.word), None):
            both = twice.kind if twice.kind == word.kind else "word or class"
            raise ConfigError(f"{twice.file} and {word.file} both have the {both} {word.word!r}: give one of them.")


def unused(word: LearnedWord) -> str:
    """A sentence on a learned word, or class, that nothing asks for."""
    if word.slot == "label":
        return f"No label asks for {word.word!r}, so {word.file} changes nothing. It is a class: --label {word.word!r}."
    return f"No prompt says {word.word!r}, so {word.file} changes nothing."


def _device_of(module: torch.nn.Module) -> torch.device:
    return next(iter(module.state_dict().values())).device
