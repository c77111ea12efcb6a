"""What a drawn shape can be asked for: form, colour, size and background, the words for them, and which combinations are held out."""

import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

from ldmctl.errors import ConfigError

TEMPLATES = (  # the first is the caption that a picture always has
    "a {thing} on a {background} background",
    "{thing}, {background} background",
    "on a {background} background there is a {thing}",
    "a picture of a {thing}, with a {background} background",
)


class Combination(NamedTuple):
    """One thing that can be asked for."""

    shape: str
    colour: str
    size: str  # small or large, '' where sizes are not told apart
    background: str  # dark or light

    @property
    def name(self) -> str:
        """`red circle`, the class."""
        return f"{self.colour} {self.shape}"

    def captions(self, count: int) -> tuple[str, ...]:
        """The same in so many different words."""
        thing = f"{self.size} {self.name}".strip()
        return tuple(template.format(thing=thing, background=self.background) for template in TEMPLATES[:count])


def combinations(shapes: Sequence[str], colours: Sequence[str], sizes: Sequence[str]) -> list[Combination]:
    """All there are, in a fixed order."""
    return [Combination(*each) for each in itertools.product(shapes, colours, sizes, ("dark", "light"))]


def held_out(every: Sequence[Combination], asked: float | Sequence[str], seed: int) -> list[Combination]:
    """The combinations to hold out: a share of all, drawn by `seed`, or those that have all words of one of the texts.

    Every word stays in one that is trained on, so that only what is said together is new; a ConfigError where that cannot be.
    """
    if not asked:
        return []
    if not isinstance(asked, float | int):
        found = [each for each in every if any(set(text.split()) <= set(each) for text in asked)]
        for text in asked:
            if not any(set(text.split()) <= set(each) for each in every):
                known = ", ".join(dict.fromkeys(word for each in every for word in each if word))
                raise ConfigError(f"held_out: no shape is drawn that is {text!r}; the words are {known}.")
        if lost := _lost(every, found):
            raise ConfigError(f"held_out leaves nothing to train on that is {lost}; hold out combinations of words, such as 'red circle'.")
        return found
    wanted = max(1, round(asked * len(every)))
    found = []
    for each in random.Random(f"{seed}/held out").sample(list(every), len(every)):
        if len(found) < wanted and not _lost(every, [*found, each]):
            found.append(each)
    if len(found) < wanted:
        raise ConfigError(
            f"held_out={asked} is too much: of {len(every)} combinations {len(found)} can be held out so that every word is trained on."
        )
    return found


def _lost(every: Sequence[Combination], held: Sequence[Combination]) -> str:
    """A word of no combination that is trained on, '' where there is none."""
    trained = [each for each in every if each not in held]
    return next((word for each in held for place, word in enumerate(each) if word and all(other[place] != word for other in trained)), "")
