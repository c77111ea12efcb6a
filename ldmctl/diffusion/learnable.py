"""What of a trained model a new word, or a new class, is learned for: its conditioner of text, or of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ldmctl.diffusion.labels import as_number, named
from ldmctl.errors import ConfigError
from ldmctl.storage import weights

KINDS = {"text": "word", "label": "class"}  # what is learned, by the slot that hears it
PLURALS = {"text": "words", "label": "classes"}
LACKING = {"text": "captions, so it hears no words", "label": "labels, so it knows no classes"}
WANTED = {
    "text": "conditions.text=words or conditions.text=text on pictures with captions",
    "label": "conditions.label=label on pictures of classes",
}


class Listener(NamedTuple):
    """A conditioner as it was trained, before it was told of anything new."""

    slot: str  # text or label
    conditioner: Any
    classes: Sequence[str]  # of the model
    known_by: Mapping[str, str]  # what vectors are made for, as their file says it: `listens`, `type` and `conditioner`, a hash
    is_published: bool  # whether it hears by a published encoder, which many models share

    @property
    def kind(self) -> str:
        """What can be learned for it: a word, or a class."""
        return KINDS[self.slot]


def listener(conditioners: Mapping[str, Any], header: Mapping[str, Any], run: str, slot: str) -> Listener:
    """What of a model listens in this slot; a ConfigError where it has nothing that does, or nothing that takes new words or classes."""
    if (found := conditioners.get(slot)) is None:
        raise ConfigError(without(conditioners, run, slot))
    if not (hasattr(found, "with_word") and hasattr(found, "word_vectors")):
        some = "words and text do" if slot == "text" else "label does"
        raise ConfigError(f"The conditioner of {slot} of {run}, {type(found).__name__}, takes no new {PLURALS[slot]}; {some}.")
    described = header["conditioner"] if slot == "label" else header["conditions"][slot]
    is_published = hasattr(type(found), "files")
    known_by = {"listens": slot, "type": described["type"], "conditioner": hash_of(found, described, is_published=is_published)}
    return Listener(slot, found, header["classes"], known_by, is_published)


def hash_of(conditioner: Any, described: Mapping[str, Any], *, is_published: bool) -> str:
    """What a conditioner is known by before it is told of anything new: its published encoder, or else all its weights."""
    if is_published:
        return str(conditioner.fingerprint)
    return weights.fingerprint(conditioner.state_dict(), {"type": described["type"], "config": described["config"]})


def without(conditioners: Mapping[str, Any], run: str, slot: str) -> str:
    """What is wrong with learning something in a slot that a model does not listen to, and what would be right."""
    other = next(each for each in KINDS if each != slot)
    if other in conditioners:
        way = f"It listens to {'labels' if other == 'label' else 'captions'}: a {KINDS[other]} can be learned for it, kind={KINDS[other]}."
        return f"{run} was trained without {LACKING[slot]}. {way}"
    ways = [f"{PLURALS[each].capitalize()} can be learned for a model that was trained with {WANTED[each]}" for each in KINDS]
    return f"{run} was trained without {LACKING['text']}, and without {LACKING['label']}. {ways[0]}. {ways[1]}."


def refuse_known(heard: Listener, word: str) -> None:
    """A ConfigError for a word that the model takes as one piece already, or a class that it has: there is a meaning to it."""
    if heard.slot == "text" and len(heard.conditioner.word_vectors(word)) < 2:
        raise ConfigError(f"The model has a word {word!r} of its own. Take one that it does not know, such as <mine>.")
    if heard.slot == "label" and named(word, list(heard.classes)) is not None:
        raise ConfigError(f"The model has a class {word!r} of its own. Take a name that it does not have, such as <mine>.")
    if heard.slot == "label" and as_number(word) is not None:
        raise ConfigError(f"{word!r} is a number, by which classes are counted. Take a name for yours, such as <mine>.")
