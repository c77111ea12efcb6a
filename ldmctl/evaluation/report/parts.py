"""What a page is made of: chapters, and what stands in one. Plain values; `page` makes HTML of them, and escapes every text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ldmctl.config.documents import write_json

LONGEST = 2000  # characters of a value
ROWS = 1000  # of a table
Found = Mapping[str, Any]  # what was read of a file that anybody may have changed


@dataclass(frozen=True)
class Figure:
    """A picture inside of the page."""

    uri: str
    width: int
    height: int
    alt: str  # what it shows, for those who do not see it
    caption: str = ""
    zoom: int = 1  # how many times as large it is shown


@dataclass(frozen=True)
class Series:
    """A number over steps; None where a report had none that is finite."""

    name: str
    steps: list[int]
    values: list[float | None]


@dataclass(frozen=True)
class Plot:
    """Lines in one picture, and vertical marks where something happened."""

    title: str
    lines: list[Series]
    marks: list[tuple[int, str]] = field(default_factory=list)

    @property
    def broken(self) -> str:
        """A sentence on reports without a finite number, '' where there are none."""
        lost = sum(value is None for line in self.lines for value in line.values)
        held = sum(len(line.values) for line in self.lines)
        return f"{lost:,} of {held:,} reported numbers are not finite; the lines are broken there." if lost else ""


@dataclass(frozen=True)
class Score:
    """A measure with its interval, and what it is compared with."""

    title: str
    value: float
    low: float | None
    high: float | None
    other: float | None


@dataclass(frozen=True)
class Scores:
    """Measures of one thing; `other` says what stands beside them."""

    caption: str
    other: str
    rows: list[Score]


@dataclass(frozen=True)
class Sheet:
    """A table; the first cell of a row is its head."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    folded: bool = False

    @property
    def shown(self) -> list[list[str]]:
        """The first rows, and how many more there are."""
        more = len(self.rows) - ROWS
        return self.rows if more <= 0 else [*self.rows[:ROWS], [f"... and {more:,} more", *[""] * (len(self.head) - 1)]]


@dataclass(frozen=True)
class Key:
    """A key of a config: its value, its default or ''; `differs` says whether it is another."""

    path: str
    value: str
    default: str
    differs: bool


@dataclass
class Chapter:
    """One thing that was made: what it is, what came out, how to make it again."""

    title: str
    path: str
    lead: str
    state: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    verdict: list[tuple[str, str]] = field(default_factory=list)  # level or '', sentence
    troubles: list[str] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    more_plots: list[Plot] = field(default_factory=list)
    slides: list[Figure] = field(default_factory=list)  # through time, the last one newest
    figures: list[Figure] = field(default_factory=list)
    groups: list[tuple[str, list[Figure]]] = field(default_factory=list)  # pictures by class or prompt
    sheets: list[Sheet] = field(default_factory=list)
    config: list[Key] = field(default_factory=list)
    repeat: list[str] = field(default_factory=list)
    known: str = "How it was made"  # the title above the facts

    def fact(self, name: str, value: Any) -> None:
        """One more line of what is known; nothing where nothing is."""
        if value not in (None, "", [], {}):
            self.facts.append((name, written(value)))


def written(value: Any) -> str:
    """A value of a config or a record in words, the first ones of very many."""
    text = value if isinstance(value, str) else f"{value:,}" if type(value) is int else write_json(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"


def listed(values: Sequence[float], most: int = 8) -> str:
    """`0.5 0.4 0.4`, the first ones."""
    return " ".join(f"{value:.4g}" for value in values[:most]) + (" ..." if len(values) > most else "")


def decoded(text: str) -> Any:
    """The value of a JSON text; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def part(found: Found, name: str) -> Found:
    """An object in one; {} where there is none."""
    each = found.get(name)
    return each if isinstance(each, Mapping) else {}


def listing(found: Found, name: str) -> list[Any]:
    """A list in an object; [] where there is none."""
    each = found.get(name)
    return each if isinstance(each, list) else []


def objects(found: Found, name: str) -> list[Found]:
    """The objects in a list of one."""
    return [each for each in listing(found, name) if isinstance(each, Mapping)]
