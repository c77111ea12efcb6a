"""Curves as SVG: axes, lines and bands in the colours of the page, with the numbers beside them for whoever points at one."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ldmctl.evaluation.report.parts import Plot, Series

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 28  # margins
POINTS = 240  # of a line; longer ones are averaged, with a band from the least to the most
DECADES = 30.0  # times the least that the most is, from which on a scale is logarithmic
COLOURS = 8  # of lines, then they start again


class Shown(NamedTuple):
    """A line as it is drawn: means of neighbouring reports, None where there are none, and their reach."""

    name: str
    steps: list[float]
    means: list[float | None]
    lows: list[float | None]
    highs: list[float | None]
    each: int  # reports in a mean


class Scale(NamedTuple):
    """From a number to a place in the picture, with the numbers that are written beside the axis."""

    place: Callable[[float], float]
    ticks: list[float]
    is_log: bool


def reduced(line: Series) -> Shown:
    """At most `POINTS` means of a line."""
    count = min(len(line.values), POINTS)
    cuts = [index * len(line.values) // count for index in range(count + 1)] if count else []
    steps, means, lows, highs = [], [], [], []
    for first, end in pairwise(cuts):
        known = [value for value in line.values[first:end] if value is not None]
        steps.append(sum(line.steps[first:end]) / (end - first))
        means.append(sum(known) / len(known) if known else None)
        lows.append(min(known, default=None))
        highs.append(max(known, default=None))
    return Shown(line.name, steps, means, lows, highs, -(-len(line.values) // count) if count else 1)


def scale(values: Sequence[float], first: float, last: float, *, may_log: bool) -> Scale:
    """A scale on which these values go from the place `first` to `last`."""
    low, high = min(values), max(values)
    is_log = may_log and low > 0 and high / low >= DECADES
    change = math.log10 if is_log else float
    a, b = change(low), change(high)
    if a == b:
        a, b = (a - abs(a) * 0.1 - 1e-9, b + abs(b) * 0.1 + 1e-9)
    place = lambda value: first + (change(value) - a) / (b - a) * (last - first)
    return Scale(place, decades(low, high) if is_log else nice(a, b), is_log)


def nice(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers, at most so many, evenly between two."""
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers, with 2 and 5 times of them where they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1, 2, 5) if sum(low <= 10.0**power <= high for power in powers) < 3 else (1,)
    found = [10.0**power * each for power in powers for each in times if low <= 10.0**power * each <= high]
    return found[:: -(-len(found) // 6)] if found else [low, high]


def svg(plot: Plot, ident: str) -> dict[str, Any] | None:
    """{"svg", "legend": [names], "data", "note"}: the picture, the numbers of it as JSON; None without one finite number."""
    shown = [reduced(line) for line in plot.lines]
    means = [value for line in shown for value in line.means if value is not None]
    if not means:
        return None
    across = scale([step for line in shown for step in line.steps], LEFT, WIDTH - RIGHT, may_log=False)
    up = scale(means, HEIGHT - BOTTOM, TOP, may_log=True)
    parts = [*grid(across, up), *marks(plot, across)]
    for index, line in enumerate(shown):
        parts += drawn(line, index % COLOURS, across, up, ident)
    label = described(plot.title, shown)
    box = (
        f'<clipPath id="{ident}-c"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
    )
    cursor = f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="{LEFT}" x2="{LEFT}"/>'
    picture = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{ident}-t"><title id="{ident}-t">{escaped(label)}</title>'
        f"{box}{''.join(parts)}{cursor}</svg>"
    )
    rows = [
        {"name": line.name, "x": [round(step) for step in line.steps], "y": [None if v is None else float(f"{v:.5g}") for v in line.means]}
        for line in shown
    ]
    ends = [min(line.steps[0] for line in shown if line.steps), max(line.steps[-1] for line in shown if line.steps)]
    data = {"left": LEFT, "right": WIDTH - RIGHT, "width": WIDTH, "from": ends[0], "to": ends[1], "series": rows}
    each = max(line.each for line in shown)
    notes = ["Logarithmic scale."] if up.is_log else []
    notes += [f"Each point is the mean of up to {each:,} reports, the band their reach."] if each > 1 else []
    notes += [plot.broken] if plot.broken else []
    return {"svg": picture, "legend": [line.name for line in shown], "data": json.dumps(data), "note": " ".join(notes)}


def grid(across: Scale, up: Scale) -> list[str]:
    """Lines and numbers of both axes."""
    rows = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up.place(tick):.1f}" y2="{up.place(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{up.place(tick) + 4:.1f}" text-anchor="end">{short(tick)}</text>'
        for tick in up.ticks
    ]
    ends = {True: "end", False: "middle"}  # the last one stays inside of the picture
    columns = [
        f'<text class="tick" x="{across.place(tick):.1f}" y="{HEIGHT - 10}" text-anchor="{ends[across.place(tick) > WIDTH - 3 * RIGHT]}">{short(tick)}</text>'
        for tick in across.ticks
    ]
    return [*rows, *columns]


def marks(plot: Plot, across: Scale) -> list[str]:
    """A vertical line where something happened; what, for those who point at it."""
    return [
        f'<line class="mark" x1="{across.place(step):.1f}" x2="{across.place(step):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
        f"<title>{escaped(said)}</title></line>"
        for step, said in plot.marks
        if LEFT <= across.place(step) <= WIDTH - RIGHT
    ]


def drawn(line: Shown, colour: int, across: Scale, up: Scale, ident: str) -> list[str]:
    """A line in pieces between gaps, over the reach of what it is the mean of; a lone number is a dot."""
    parts, clip = [], f'clip-path="url(#{ident}-c)"'
    for piece in pieces(line.means):
        places = [(across.place(line.steps[index]), index) for index in piece]
        if len(piece) == 1:
            x, index = places[0]
            parts.append(f'<circle class="s{colour}" cx="{x:.1f}" cy="{up.place(line.means[index]):.1f}" r="2.5"/>')  # type: ignore[arg-type]
            continue
        if line.each > 1:
            edges = [f"{x:.1f},{reach(line.highs[index], up):.1f}" for x, index in places]
            edges += [f"{x:.1f},{reach(line.lows[index], up):.1f}" for x, index in reversed(places)]
            parts.append(f'<polygon class="b{colour}" {clip} points="{" ".join(edges)}"/>')
        points = " ".join(f"{x:.1f},{up.place(line.means[index]):.1f}" for x, index in places)  # type: ignore[arg-type]
        parts.append(f'<polyline class="s{colour}" points="{points}"/>')
    return parts


def reach(value: float | None, up: Scale) -> float:
    """The place of the end of a band; on a logarithmic scale that of nothing is below the picture."""
    assert value is not None
    return up.place(value) if value > 0 or not up.is_log else HEIGHT


def pieces(values: Sequence[float | None]) -> list[list[int]]:
    """Runs of places with a number."""
    out: list[list[int]] = []
    for index, value in enumerate(values):
        if value is None:
            continue
        if out and out[-1][-1] == index - 1:
            out[-1].append(index)
        else:
            out.append([index])
    return out


def described(title: str, shown: Sequence[Shown]) -> str:
    """What a curve shows, in a sentence."""
    words = []
    for line in shown:
        known = [value for value in line.means if value is not None]
        if known:
            words.append(f"{line.name} from {known[0]:.4g} to {known[-1]:.4g}, least {min(known):.4g}, most {max(known):.4g}")
    return f"{title}: {'; '.join(words)}"


def short(value: float) -> str:
    """`1,000`, `0.05`, `1e-05`."""
    return f"{value:,.0f}" if value == round(value) and 1 <= abs(value) < 1e7 else f"{value:.4g}"


def escaped(text: str) -> str:
    """Text as it stands in markup."""
    return html.escape(text)
