"""A sentence on whether samples show the words of their prompts, by how well the judge sees those of real pictures' captions."""

from __future__ import annotations

import math
from typing import Any

from ldmctl.evaluation.judgement import Judgement

RIGHT = 0.05  # that how often the judge sees what was asked may lie below that of real pictures
NAMED = 3  # words that are shown worst
ASKED = 20  # samples that were asked for one of these, at least


def words_shown(found: dict[str, Any]) -> Judgement:
    """Of what `words.compared` found, with None for what is no number."""
    real, bound = found["real"], (found["real"]["value"] or 0.0) - RIGHT
    if found["value"] is None or real["value"] is None:
        return Judgement(
            "words",
            "unknown",
            f"The judge of words can tell {found['told']:,} of {found['of']:,} words of the captions on real pictures, and samples were asked "
            "for none of them: nothing is said of how well they show their words.",
        )
    reach = "" if found["low"] is None else f" ({found['low']:.1%} to {found['high']:.1%})"
    words = (
        f"Of the words that samples were asked for the judge sees {found['value']:.1%}{reach}, of those of other real pictures' captions "
        f"{real['value']:.1%}; of words that nobody asked for {_share(found['unasked'])}, where real pictures have {_share(real['unasked'])}. "
        f"It can tell {found['told']:,} of {found['of']:,} words"
    )
    if found["low"] is None or found["low"] < bound <= found["high"]:
        return Judgement("words", "unknown", f"{words}: more samples needed to tell them apart.")
    if found["value"] < bound:
        return Judgement("words", "poor", f"{words}: weak.{_worst(found['words'])} Train longer, or raise guidance.")
    if (found["unasked"]["value"] or 0.0) > (real["unasked"]["value"] or 0.0) + RIGHT:
        return Judgement("words", "poor", f"{words}: weak, samples show what nobody asked for.")
    return Judgement("words", "good", f"{words}: good.{_worst(found['words'])}")


def _share(found: dict[str, Any]) -> str:
    return "none" if found["value"] is None or math.isnan(found["value"]) else f"{found['value']:.1%}"


def _worst(rows: dict[str, Any]) -> str:
    """The words that are furthest behind real pictures, where they are."""
    behind = {
        word: row["real"]["seen"] - row["seen"]
        for word, row in rows.items()
        if row["told"] and row["count"] >= ASKED and row["real"]["seen"] is not None
    }
    worst = sorted((word for word, by in behind.items() if by > RIGHT), key=lambda word: -behind[word])[:NAMED]
    if not worst:
        return ""
    said = (f"{word} {rows[word]['seen']:.0%} (of real ones {rows[word]['real']['seen']:.0%})" for word in worst)
    return f" Least: {', '.join(said)}."
