"""Words that were learned from a few pictures, each a small file, and a model's conditioner of text that is told of them.

A file holds `vectors` [n,D], which stand where the model would look a known word up, and in its header the word and which conditioner
it is for. The file of a model is not touched: who does not name the word gets what the model always made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.asking import parts_of
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.storage import headers, weights

KIND = "token"


class LearnedWord(NamedTuple):
    """One word as its file has it."""

    file: str  # as it was named
    word: str
    vectors: Tensor  # [n,D] float32
    header: dict[str, Any]
    sha256: str  # of the file


def listener(conditioner: Any, run: str) -> Any:
    """The conditioner of text itself; a ConfigError where a model has none, or one that takes no new words."""
    if conditioner is None:
        raise ConfigError(
            f"{run} was trained without captions, so it hears no words. Words can be learned for a model that was trained with "
            "conditions.text=words or conditions.text=text on pictures with captions."
        )
    if not (hasattr(conditioner, "with_word") and hasattr(conditioner, "word_vectors")):
        raise ConfigError(f"The text conditioner of {run}, {type(conditioner).__name__}, takes no new words; words and text do.")
    return conditioner


def spoken_by(conditioner: Any, described: Mapping[str, Any]) -> str:
    """What vectors of words are made for, as a hash: a published encoder, which many models share, or else all weights of the conditioner.

    `described` is what the model's header says of it. It is asked before there are learned words.
    """
    if hasattr(type(conditioner), "files"):
        return str(conditioner.fingerprint)
    return weights.fingerprint(conditioner.state_dict(), {"type": described["type"], "config": described["config"]})


def refuse_known(conditioner: Any, word: str) -> None:
    """A ConfigError for a word that the model takes as one piece already: it has a meaning of its own."""
    if len(conditioner.word_vectors(word)) < 2:
        raise ConfigError(f"The model has a word {word!r} of its own. Take one that it does not know, such as <mine>.")


def read_word(file: str | Path) -> LearnedWord:
    """The word of a file that fit-token wrote; any other is a MismatchError."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise MismatchError(f"There is no file {file} with a learned word. `ldmctl fit-token --out {file}` makes one.")
    tensors, header = weights.load(path)
    if header.get("kind") != KIND:
        raise MismatchError(f"{file} holds no learned word, but {header.get('kind', 'something else')}. fit-token writes files of words.")
    headers.check(headers.Token, header, path)
    vectors = tensors.get("vectors")
    if vectors is None or vectors.ndim != 2 or not vectors.numel() or not bool(vectors.float().isfinite().all()):
        raise MismatchError(f"{file} is damaged: it should hold vectors of a word, all of them finite.")
    return LearnedWord(str(file), header["word"], vectors.float(), header, weights.file_sha256(path))


def refuse_other(word: LearnedWord, conditioner: Any, described: Mapping[str, Any], run: str) -> None:
    """A MismatchError for a word that was learned for the conditioner of another model."""
    if word.header["type"] != described["type"] or word.header["conditioner"] != spoken_by(conditioner, described):
        other = "another text encoder" if hasattr(type(conditioner), "files") else "another model, or another state of it"
        raise MismatchError(
            f"{word.file} has the word {word.word!r} as {other} hears it, so it means nothing to {run}. Learn it for this one: "
            f"ldmctl fit-token --run {run} --data FOLDER --word '{word.word}'"
        )
    if (width := conditioner.word_vectors("a").shape[1]) != word.vectors.shape[1]:
        raise MismatchError(f"{word.file} is damaged: its vectors have {word.vectors.shape[1]} numbers, and words here have {width}.")


def said_in(words: Iterable[LearnedWord], texts: Iterable[str]) -> list[LearnedWord]:
    """Of learned words, those that one of these prompts says."""
    parts = [part.words for text in texts if text for part in parts_of(text)]
    return [word for word in words if any(word.word in each for each in parts)]


class Vocabulary:
    """The conditioner of text of a network as it was trained, and copies of it that also hear learned words, each made once."""

    def __init__(self, network: Any, header: Mapping[str, Any], run: str):
        self.network, self.described, self.run = network, header.get("conditions", {}).get("text", {}), run
        self.plain = network.text
        self.files: dict[str, LearnedWord] = {}
        self.copies: dict[tuple[str, ...], Any] = {(): network.text}

    def said(self, texts: Iterable[str], config: Sample) -> list[LearnedWord]:
        """The words of the files that a config names, as far as these prompts say them."""
        return said_in(self.read(config), texts)

    def read(self, config: Sample) -> list[LearnedWord]:
        """All words of the files that a config names; those that do not fit are a ConfigError or a MismatchError."""
        for file in config.token or []:
            if file not in self.files:
                listener(self.plain, self.run)
                word = read_word(file)
                refuse_other(word, self.plain, self.described, self.run)
                refuse_known(self.plain, word.word)
                self.files[file] = word
        words = [self.files[file] for file in config.token or []]
        refuse_twice(words)
        return words

    def hear(self, config: Sample) -> None:
        """Have the network hear the words of the files that a config names, and no others."""
        words = self.read(config)
        key = tuple(word.sha256 for word in words)
        if key not in self.copies:
            self.copies[key] = copy.deepcopy(self.plain)
            for word in words:
                self.copies[key].with_word(word.word, word.vectors.to(_device_of(self.plain)))
        self.network.text = self.copies[key]


def refuse_twice(words: Sequence[LearnedWord]) -> None:
    """A ConfigError where two files have the same word."""
    for place, word in enumerate(words):
        if twice := next((other for other in words[:place] if other.word == word.word), None):
            raise ConfigError(f"{twice.file} and {word.file} both have the word {word.word!r}: give one of them.")


def unsaid(words: Sequence[LearnedWord], config: Sample) -> list[str]:
    """A sentence for each learned word that no prompt of this config says."""
    said = said_in(words, [*(config.prompt or []), config.negative or ""])
    return [f"No prompt says {word.word!r}, so {word.file} changes nothing." for word in words if word not in said]


def _device_of(module: torch.nn.Module) -> torch.device:
    return next(iter(module.state_dict().values())).device
