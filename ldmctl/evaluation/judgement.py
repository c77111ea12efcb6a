"""What a sentence of a verdict is made of: bounds, their sources, and the words that all of them use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ldmctl.evaluation.metrics import Mean
from ldmctl.evaluation.scores import Evaluation

Level = Literal["good", "doubtful", "poor", "unknown"]

LONGER = ["more loop.steps"]
SHOWN = "what its curves show, below"  # instead, where they show a cause
WIDER = ["more autoencoder.channels", "more values in autoencoder.levels"]
NARROWER = ["fewer autoencoder.channels", "fewer autoencoder.levels"]
SHORTCUT = ["autoencoder.shortcuts=true"]  # what a network that is small for its task learns several times as fast with
FINER = ["an entry less in autoencoder.widths"]
LOOSER = ["a smaller autoencoder.kl_weight", "a larger autoencoder.kl_target"]
TIGHTER = ["a larger autoencoder.kl_weight", "a smaller autoencoder.kl_target"]
WEIGHTS = {
    "losses.perceptual_weight": "perceptual",
    "losses.shares.perceptual": "perceptual",
    "adversarial.weight": "adversarial",
    "losses.shares.adversarial": "adversarial",
}


class Judgement(NamedTuple):
    """A sentence about one number."""

    about: str
    level: Level
    sentence: str


def _ways(found: Evaluation, *ways: str) -> str:
    """Of phrases around one dotted key each, those whose key would change something and that no cause of the run advises the opposite
    of; more steps only of a run that shows no cause."""
    keys = [next(word.partition("=")[0] for word in way.split() if "." in word) for way in ways]
    useful = [way for way, key in zip(ways, keys, strict=True) if _counts(found, key) and not (found.causes and way in LONGER)]
    useful = [way for way in useful if not any(_opposite(way) in cause for cause in found.causes)]
    return _listed(useful or ([SHOWN] if found.causes else LONGER), "or")


def _opposite(way: str) -> str:
    """`a smaller loop.lr` of `a larger loop.lr`, `fewer autoencoder.channels` of `more autoencoder.channels`, and back."""
    pairs = {"larger": "smaller", "smaller": "larger", "more": "fewer", "fewer": "more"}
    return " ".join(pairs.get(word, word) for word in way.split())


def _weight(found: Evaluation, loss: str) -> str:
    """The key that says how much this loss counts."""
    names = ("losses.shares." + loss,) if found.losses is not None and "shares" in found.losses else tuple(WEIGHTS)
    return next(name for name in names if WEIGHTS[name] == loss)


def _counts(found: Evaluation, key: str) -> bool:
    """Whether this autoencoder has the key, and was trained by the loss that it weighs."""
    if key.startswith("autoencoder."):
        return key.removeprefix("autoencoder.") in found.keys
    return key not in WEIGHTS or found.losses is None or WEIGHTS[key] in found.losses


def _listed(words: Sequence[str], joint: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"


def _interval(mean: Mean, form: str) -> str:
    middle, low, high = mean.interval()
    return f"{middle:{form}}" if math.isnan(low) else f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _behind(found: Evaluation, name: str) -> bool:
    """Whether shrinking alone keeps as much by this measure."""
    return name in found.gains and found.gains[name].mean <= 0


def _ratio(found: Evaluation, name: str) -> float:
    """A distance relative to the baseline's; nan where there is none, or none to be relative to."""
    theirs = found.baseline[name].mean if name in found.baseline else 0.0
    return found.measures[name].mean / theirs if theirs > 0 else math.nan
