"""What the numbers of samples mean: a sentence each, by how real pictures compare with other real pictures at the same number."""

from __future__ import annotations

import math
from typing import Any

from ldmctl.evaluation.comparison import DISTANCES, Interval
from ldmctl.evaluation.judgement import Judgement
from ldmctl.evaluation.memorisation import ENOUGH
from ldmctl.evaluation.word_verdict import RIGHT, words_shown

CLOSE = 3.0  # times the distance of real pictures that good samples have at most
SHORT = 0.1  # that a share may lie below that of real pictures
BEGUN, COPYING = 0.02, 0.5  # shares of samples that are copies
MANY = 200  # pictures below which none of these numbers says that samples are good: a hundredth of them is two pictures
WIDE = 0.5  # of a Frechet distance: an interval that reaches further on both sides says little


def judge(found: dict[str, Any]) -> list[Judgement]:
    """A judgement of each number of what `eval-samples` found."""
    width = found.get("extractor", {}).get("features", 0)
    said = [_measure(name, each, width) for name, each in found["measures"].items()]
    said += [_asked(found["asked"])] if found.get("asked") else []
    said += [words_shown(found["words"])] if found.get("words") else []
    said += [_copies(found["memorisation"])] if found.get("memorisation") else []
    said += [_duplicates(found["duplicates"])] if found.get("duplicates") else []
    return said


def small(count: int, width: int, title: str) -> str:
    """A sentence where there are fewer samples than features; '' otherwise."""
    if count > width:
        return ""
    return (
        f"{count:,} samples are not more than the {width:,} features of {title}: their covariance is singular, and a Frechet distance of so few is "
        f"mostly their number. Take -n {width * 2:,} or more, or read the kernel distances, which need no covariance."
    )


def _measure(name: str, found: dict[str, Any], width: int) -> Judgement:
    """What a number says. That it looks good says nothing of few pictures, nor of no more than there are features, where large differences hide."""
    own, real = _interval(found.get("same", found)), _interval(found["real"])
    of = f" of {found['same']['count']:,} samples, evenly," if "same" in found else ""
    words = f"{found['title']}{of} is {_shown(own)}, that of as many real pictures {_shown(real)}"
    if math.isnan(own[1]):
        return Judgement(name, "unknown", f"{words}: more samples needed for an interval.")
    said = _distance(name, own, real, words) if name in DISTANCES else _share(name, own, real, words)
    least = max(MANY, width + 1) if name == "frechet_distance" else MANY
    if said.level == "good" and found["real"].get("count", least) < least:
        more = "real pictures" if "same" in found else "samples"
        return Judgement(name, "unknown", f"{words}: more {more} needed, {least:,} at least; of so few no difference can be seen.")
    return said


def _share(name: str, own: Interval, real: Interval, words: str) -> Judgement:
    if own[2] >= real[0] - SHORT and own[1] < real[0] - SHORT:
        return Judgement(name, "unknown", f"{words}: more samples needed to tell them apart.")
    if own[0] >= real[0] - SHORT:
        return Judgement(name, "good", f"{words}: good.")
    return Judgement(name, "poor", f"{words}: weak. {MEANING[name]}")


def _distance(name: str, own: Interval, real: Interval, words: str) -> Judgement:
    """Kernel distances of real pictures lie around 0, so the end of their interval is what others are measured by."""
    floor = real[0] if name == "frechet_distance" else max(abs(real[1]), abs(real[2]))
    if name == "frechet_distance" and own[2] - own[0] > WIDE * own[0]:
        return Judgement(name, "unknown", f"{words}: more samples needed, the interval is about as wide as the number.")
    if own[1] <= max(real[2], real[0]):
        return Judgement(name, "good", f"{words}: good, no difference can be seen at this number of samples.")
    if own[0] <= CLOSE * floor:
        return Judgement(name, "good", f"{words}: good, within {CLOSE:g} times of it.")
    if own[1] <= CLOSE * floor:
        return Judgement(name, "unknown", f"{words}: more samples needed to say whether it is within {CLOSE:g} times of it.")
    return Judgement(name, "poor", f"{words}: weak, {own[0] / floor if floor else math.inf:.3g} times as far.")


MEANING = {
    "precision": "Samples lie where no real picture is: look at them, train longer, or raise guidance.",
    "recall": "Kinds of real pictures are missing among the samples: lower guidance, or train longer.",
    "density": "Samples lie where real pictures are rare.",
    "coverage": "Real pictures have no sample near them: lower guidance, or train longer.",
}


def _asked(found: dict[str, Any]) -> Judgement:
    own, real = _interval(found), _interval(found["real"])
    reach = "" if math.isnan(own[1]) else f" ({own[1]:.1%} to {own[2]:.1%})"
    words = (
        f"The judge ({found['judge']}) sees what was asked in {own[0]:.1%} of the samples{reach}, "
        f"and the right class in {real[0]:.1%} of other real pictures"
    )
    if real[0] < 0.8:
        return Judgement("asked", "unknown", f"{words}: too few to judge samples by. Name a better --extractor.")
    bound = real[0] - RIGHT
    if math.isnan(own[1]) or own[1] < bound <= own[2]:
        return Judgement("asked", "unknown", f"{words}: more samples needed to tell them apart.")
    if own[0] >= bound:
        return Judgement("asked", "good", f"{words}: good.")
    return Judgement("asked", "poor", f"{words}: weak. Train longer, or raise guidance.")


def _copies(found: dict[str, Any]) -> Judgement:
    if not found.get("learned", True):
        return _copies_of_others(found)
    share, passes = found["share"], found["passes"]
    many = f"{passes:,.0f}" if passes and passes >= 100 else f"{passes or 0:.3g}"
    after = f" after {many} passes over the {found['of']:,} training pictures" if passes else ""
    words = _nearer(found, "a training picture")
    if share >= COPYING:
        return Judgement(
            "memorisation",
            "poor",
            f"{words}: the run repeats its training pictures{after}. Stop earlier (RUN@STEP), take more pictures, or a smaller network.",
        )
    if few := _few(found):
        return Judgement("memorisation", "unknown", f"{words}: {few}.")
    if found["low"] > BEGUN:
        return Judgement(
            "memorisation",
            "doubtful",
            f"{words}: the run has begun to copy{after}. Look at the sheet of closest pairs, and at earlier snapshots.",
        )
    if found["high"] > 2 * BEGUN:
        return Judgement("memorisation", "unknown", f"{words}: more samples needed to say whether that is chance.")
    return Judgement("memorisation", "good", f"{words}: the run does not copy{after}.")


def _copies_of_others(found: dict[str, Any]) -> Judgement:
    """Of pictures by which nothing can be said of what a run has learned by heart."""
    words = _nearer(found, "one of the pictures that they are compared with")
    known = found["learned"] is not None
    others = (
        "Those are not the pictures that the run learned from"
        if known
        else "Nothing says whether what made them learned from these pictures"
    )
    others += ", so this says nothing of what it has learned by heart"
    if found["share"] >= COPYING:
        return Judgement("memorisation", "poor", f"{words}: they repeat these pictures. {others}.")
    if few := _few(found):
        return Judgement("memorisation", "unknown", f"{words}: {few}. {others}.")
    if found["low"] > BEGUN:
        return Judgement("memorisation", "doubtful", f"{words}: some are copies of these pictures. {others}.")
    return Judgement("memorisation", "unknown", f"{words}. {others}.")


def _nearer(found: dict[str, Any], picture: str) -> str:
    reach = "" if found["low"] is None or math.isnan(found["low"]) else f" ({found['low']:.1%} to {found['high']:.1%})"
    return f"{found['share']:.1%} of the samples{reach} are nearer to {picture} than {1 - found['quantile']:.0%} of {found['ordinary']} are"


def _few(found: dict[str, Any]) -> str:
    count = found.get("ordinary_count", ENOUGH)
    return f"of only {count:,} real pictures the nearest says little; {ENOUGH} or more are needed" if count < ENOUGH else ""


def _duplicates(found: dict[str, Any]) -> Judgement:
    count, every = found["count"], found.get("of", found["count"])
    which = "the samples" if count >= every else f"{count:,} of the {every:,} samples, evenly,"
    words = (
        f"{found['share']:.1%} of {which} are nearer to another {'sample' if count >= every else 'of these'} than {1 - found['quantile']:.0%} of "
        "as many real pictures are to another one"
    )
    if count < MANY <= every:
        return Judgement(
            "duplicates", "unknown", f"{words}: more real pictures needed to say whether the samples repeat themselves, {MANY} or more."
        )
    if count < MANY:
        return Judgement("duplicates", "unknown", f"{words}: more samples needed to say whether they repeat themselves, {MANY} or more.")
    if found["share"] > 5 * BEGUN:
        return Judgement("duplicates", "poor", f"{words}: the samples repeat themselves.")
    if (found.get("low") or 0) > BEGUN:
        return Judgement("duplicates", "doubtful", f"{words}: some of them are nearly alike. Look at the sheet of them.")
    return Judgement("duplicates", "good", f"{words}: they do not repeat themselves.")


def _interval(found: dict[str, Any]) -> Interval:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    return value, math.nan if low is None else low, math.nan if high is None else high


def _shown(found: Interval) -> str:
    value, low, high = found
    return f"{value:.4g}" if math.isnan(low) else f"{value:.4g} ({low:.4g} to {high:.4g})"
