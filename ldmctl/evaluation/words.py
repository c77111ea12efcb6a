"""Whether samples show the words that they were asked for: a row per word, beside real pictures and the words of their own captions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl.diffusion.asking import parts_of
from ldmctl.errors import ConfigError, DataError
from ldmctl.evaluation.comparison import Interval
from ldmctl.evaluation.jackknife import groups_of, interval
from ldmctl.evaluation.neighbours import share
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.said import said_of

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
LEAST, MOST = 0.02, 0.98  # shares of captions that a word is in
COUNTED, KEPT = 10, 200  # captions with a word at least, and words at most
TOLD = 0.5  # by how much more often the judge sees a word in real pictures of it than in others, for the word to count
FEW = 5  # real pictures with a word, and without it, that this takes


@dataclass(frozen=True)
class Heard:
    """Of pictures [N] and words [K]: which they were asked for, and which the judge sees."""

    asked: Tensor  # bool [N,K]
    seen: Tensor  # bool [N,K]

    def __len__(self) -> int:
        return len(self.asked)

    def only(self, words: Tensor) -> Heard:
        """Of these words, bool [K]."""
        return Heard(self.asked[:, words], self.seen[:, words])

    def of(self, asked: bool) -> Interval:
        """(value, low, high): the share of the words that were asked for, or of those that were not, that are seen; nan where there are none."""
        wanted = self.asked == asked
        seen, count = (self.seen & wanted).sum(1).double(), wanted.sum(1).double()
        if not count.sum():
            return math.nan, math.nan, math.nan
        groups = groups_of(len(self))
        rest = [groups != group for group in groups.unique()]
        without = [(seen[kept].sum() / count[kept].sum()).item() for kept in rest if count[kept].sum()]
        return share(interval((seen.sum() / count.sum()).item(), without), int(count.sum()))


def words_in(text: str) -> set[str]:
    """The words of a text, in lower case: `A Red circle.` -> {"a", "red", "circle"}."""
    return {found.lower() for found in WORD.findall(text)}


def words_of_prompt(prompt: str) -> set[str]:
    """Those of all parts of a prompt, without their shares."""
    try:
        return set().union(*(words_in(part.words) for part in parts_of(prompt)))
    except ConfigError:  # `|` in words of others
        return words_in(prompt)


def vocabulary(captions: Sequence[set[str]]) -> list[str]:
    """The words that are in some captions and not in all, the most frequent first; what all or hardly any have tells nothing."""
    count = Counter(word for each in captions for word in each)
    least, most = max(COUNTED, LEAST * len(captions)), MOST * len(captions)
    known = [word for word, number in count.items() if least <= number <= most]
    return sorted(known, key=lambda word: (-count[word], word))[:KEPT]


def which(captions: Iterable[set[str]], words: Sequence[str]) -> Tensor:
    """bool [N,K]: which words each has."""
    rows = [[word in each for word in words] for each in captions]
    return torch.tensor(rows, dtype=torch.bool).reshape(len(rows), len(words))


def captions_of(pictures: Pictures, row: int, text: str | None = None) -> set[str]:
    """The words of all captions of a picture; none where it cannot be read."""
    try:
        several = pictures.captions(row)
        return words_in(" ".join(several or [pictures.note(row)[1] if text is None else text]))
    except DataError:
        return set()


def prompt_of(file: Path) -> str:
    """What a sample was asked for: its PNG's text, else a text file of the same name beside it; empty where nobody says."""
    said = said_of(file) if file.suffix.lower() == ".png" else {}
    if isinstance(prompt := said.get("prompt"), str):
        return prompt
    if "seed" in said:  # ldmctl's own, made without words
        return ""
    try:
        return file.with_suffix(".txt").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def compared(own: Heard, real: Heard, words: Sequence[str]) -> dict[str, Any]:
    """{"count", "value", "low", "high", "unasked", "real", "told", "of", "words": {word: {"count", "seen", "unasked", "real"}}}.

    `value` is the share of the words asked for that are seen, over the "told" of "of" words that the judge can tell on real pictures; "unasked"
    the same of words that were not asked for. Words that no sample was asked for have no row.
    """
    told = told_by(real)
    rows = {
        word: {**row_of(own, place), "told": bool(told[place]), "real": row_of(real, place)}
        for place, word in enumerate(words)
        if own.asked[:, place].any()
    }
    both = [heard.only(told) for heard in (own, real)]
    mine, theirs = ({**named(each.of(True)), "unasked": named(each.of(False)), "count": len(each)} for each in both)
    return {**mine, "real": theirs, "told": int(told.sum()), "of": len(words), "words": rows}


def told_by(real: Heard) -> Tensor:
    """bool [K]: which words the judge sees much oftener in pictures whose captions have them than in others."""
    with_it, without = real.asked.sum(0), (~real.asked).sum(0)
    right = (real.seen & real.asked).sum(0) / with_it.clamp(min=1)
    wrong = (real.seen & ~real.asked).sum(0) / without.clamp(min=1)
    return (right - wrong >= TOLD) & (with_it >= FEW) & (without >= FEW)


def row_of(heard: Heard, place: int) -> dict[str, Any]:
    """Of one word: how many were asked for it, in which share of them it is seen, and in which share of the others."""
    asked, seen = heard.asked[:, place], heard.seen[:, place]
    part = lambda those: seen[those].double().mean().item() if those.any() else math.nan
    return {"count": int(asked.sum()), "seen": part(asked), "unasked": part(~asked)}


def named(found: Interval) -> dict[str, float]:
    """By name."""
    return dict(zip(("value", "low", "high"), found, strict=True))
