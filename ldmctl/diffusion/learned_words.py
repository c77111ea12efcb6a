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


def said_in(words: Iterable[LearnedWord], config: Sample) -> list[LearnedWord]:
    """Of learned words, those that a prompt of this config says, or what it goes away from."""
    texts = [*(config.prompt or []), *([config.negative] if config.negative else [])]
    parts = [part.words for text in texts for part in parts_of(text)]
    return [word for word in words if any(word.word in each for each in parts)]


def taught(conditioner: Any, words: Sequence[LearnedWord], described: Mapping[str, Any], run: str) -> Any:
    """A copy of a conditioner of text that also hears these words; what does not fit is a ConfigError or a MismatchError."""
    listener(conditioner, run)
    known = copy.deepcopy(conditioner)
    for place, word in enumerate(words):
        if twice := next((other for other in words[:place] if other.word == word.word), None):
            raise ConfigError(f"{twice.file} and {word.file} both have the word {word.word!r}: give one of them.")
        refuse_other(word, conditioner, described, run)
        refuse_known(conditioner, word.word)
        known.with_word(word.word, word.vectors.to(_device_of(conditioner)))
    return known


def _device_of(module: torch.nn.Module) -> torch.device:
    return next(iter(module.state_dict().values())).device
