"""What is to be learned from a few pictures, and with what it begins: a word of a model that listens to captions, or a class of one that
listens to labels (arXiv:2208.01618)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmctl.config.schemas.fit_token import FitToken
from ldmctl.diffusion.labels import class_index, learned_classes, refuse_untrained
from ldmctl.diffusion.learnable import KINDS, Listener, listener, refuse_known
from ldmctl.diffusion.model import Model
from ldmctl.errors import ConfigError

A_WORD = "a"  # with which a new word begins where no other is named


class Lesson(NamedTuple):
    """A word or a class to be learned."""

    config: FitToken  # with its kind and what it begins with spelled out
    listener: Listener
    label: int  # index of the class under which pictures are learned from, a new class behind all others; -1 for none
    known: Tensor  # [n,D], what it begins with
    beginning: str  # the same in words
    captions: tuple[str, ...]  # for pictures without one of their own; none of a class

    @property
    def first(self) -> Tensor:
        """The vectors [vectors,D] that are learned, as they begin."""
        return first_vectors(self.known, self.config.vectors)

    @property
    def asking(self) -> str:
        """How pictures are asked for by it."""
        return f"--prompt '{self.captions[0]}'" if self.captions else f"--label '{self.config.word}'"


def lesson_of(config: FitToken, model: Model) -> Lesson:
    """What a config asks to be learned by a model; what does not fit the model is a ConfigError."""
    conditioners, header = model.network.conditioners, model.header
    slot = next((slot for slot, kind in KINDS.items() if config.kind == kind), None) or heard_first(conditioners)
    heard = listener(conditioners, header, config.run, slot)
    refuse_known(heard, config.word)
    refuse_other_pictures(config, header, heard.kind)
    return (word_of if slot == "text" else class_of)(config, header, heard)


def heard_first(conditioners: Mapping[str, Any]) -> str:
    """The slot that is learned for where none is named: text, unless a model listens to labels and not to text."""
    return "label" if "label" in conditioners and "text" not in conditioners else "text"


def word_of(config: FitToken, header: dict[str, Any], heard: Listener) -> Lesson:
    """A word; it begins with another."""
    config = config.model_copy(update={"kind": heard.kind, "init_word": config.init_word or A_WORD})
    assert config.init_word is not None
    if not len(known := heard.conditioner.word_vectors(config.init_word)):
        raise ConfigError(f"init_word={config.init_word!r} says nothing to this model. Take another word, such as {A_WORD}.")
    label = -1 if config.label is None else label_of(config.label, header)
    if label < 0 and header["conditioner"] is not None and not header["left_alone"]["label"]:
        raise ConfigError("This model was never trained on words without a label: name the class of the pictures by --label.")
    heard.conditioner.with_word(config.word, first_vectors(known, config.vectors))
    if long := [caption for caption in config.captions if heard.conditioner.cut(caption)]:
        raise ConfigError(f"The caption {long[0]!r} is longer than the model hears: take fewer vectors, or a shorter template.")
    return Lesson(config, heard, label, known, repr(config.init_word), tuple(config.captions))


def class_of(config: FitToken, header: dict[str, Any], heard: Listener) -> Lesson:
    """A class, heard without words; it begins with another, or with the mean of all that were trained."""
    if not (trained := learned_classes(header)):
        raise ConfigError(f"{config.run} never learned a label, so no class means anything to it: train one with drop=0.1 and labels.")
    if config.vectors != 1:
        raise ConfigError(f"A class is one vector, so vectors={config.vectors} cannot be: leave it away. Several vectors are for words.")
    if config.label is not None:
        raise ConfigError(
            f"--label names the class of pictures from which a word is learned, and here {config.word!r} is the class: leave it away."
            " A class that it is to begin with is named by --init-word."
        )
    if "text" in header.get("conditions", {}) and not header["left_alone"]["text"]:
        raise ConfigError(
            "This model was never trained on labels without a caption (conditions.drop.text=0), so no class can be learned for it alone. "
            "A word can: kind=word."
        )
    begin = [label_of(config.init_word, header)] if config.init_word is not None else trained
    if min(begin) < 0:
        raise ConfigError(f"init_word={config.init_word!r} is no class to begin with: name one, or leave it away for the mean of all.")
    names = [heard.classes[index] for index in begin]
    known = torch.cat([heard.conditioner.word_vectors(name) for name in names])
    config = config.model_copy(update={"kind": heard.kind, "init_word": names[0] if config.init_word is not None else None})
    beginning = f"the class {names[0]!r}" if config.init_word is not None else mean_of(names)
    return Lesson(config, heard, len(heard.classes), known, beginning, ())


def mean_of(names: Sequence[str]) -> str:
    """The mean of these classes, in words."""
    return f"the mean of all {len(names):,} classes" if len(names) > 1 else f"the class {names[0]!r}"


def refuse_other_pictures(config: FitToken, header: Mapping[str, Any], kind: str) -> None:
    """A ConfigError for pictures of another size than the model makes, and for a model that wants more than a word and a class to make any."""
    given = {key: header["image"][key] for key in ("size", "channels")}
    if apart := [key for key, value in given.items() if getattr(config.image, key) != value]:
        raise ConfigError(
            f"The model makes pictures of image.{apart[0]}={given[apart[0]]}, and no others can be learned from. Leave it away."
        )
    if needed := [slot for slot in ("map", "picture") if not header.get("left_alone", {}).get(slot, True)]:
        raise ConfigError(
            f"This model was never trained on words or labels without a {needed[0]} (conditions.drop.{needed[0]}=0), so no {kind} can be "
            "learned for it."
        )


def label_of(name: str, header: Mapping[str, Any]) -> int:
    """The class of a name, -1 for `none`; a ConfigError for one that the model does not know."""
    if header["conditioner"] is None:
        raise ConfigError("This model was trained without labels, so --label has nothing to choose. Leave it away.")
    label = class_index(name, header["classes"])
    refuse_untrained(dict(header), [label])
    return label


def first_vectors(known: Tensor, count: int) -> Tensor:
    """`count` vectors [count,D] to begin with, of known ones [n,D]: means of neighbours where there are more, in turn where there are fewer."""
    if len(known) > count:
        return torch.stack([part.mean(0) for part in known.tensor_split(count)])
    return known[torch.arange(count, device=known.device) % len(known)]
