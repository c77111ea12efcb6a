"""Chapters as one HTML page that opens from disk: style, script, curves and pictures are in it, and nothing is loaded from anywhere.

Jinja2 escapes every text. Beyond that a content security policy lets no script run but the page's own, which is known by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from ldmctl.evaluation.report.parts import Chapter, Plot, Scores
from ldmctl.evaluation.report.plot import svg

GENERATOR = "ldmctl report"


def page(chapters: Sequence[Chapter], *, title: str, made: str, troubles: Sequence[str], again: int | None = None) -> str:
    """The text of the page. With `again` a browser loads it anew after so many seconds."""
    import jinja2
    from markupsafe import Markup

    own = files("ldmctl.evaluation.report")
    text = {name: own.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    told = environment.from_string(text["page.html"]).render(
        title=title,
        made=made,
        generator=GENERATOR,
        troubles=troubles,
        again=again,
        chapters=[drawn(each, f"c{number}", Markup) for number, each in enumerate(chapters, start=1)],
        style=Markup(text["page.css"]),
        script=Markup(text["page.js"]),
        script_hash=base64.b64encode(hashlib.sha256(text["page.js"].encode()).digest()).decode(),
    )
    return told.encode("utf-8", "replace").decode("utf-8")  # names of files that are no UTF-8


def drawn(chapter: Chapter, ident: str, markup: Any) -> dict[str, Any]:
    """A chapter with its curves as SVG."""
    return {
        **vars(chapter),
        "id": ident,
        "scores": [{**vars(each), "rows": bars(each, markup)} for each in chapter.scores],
        "plots": pictures_of(chapter.plots, f"{ident}-p", markup),
        "more_plots": pictures_of(chapter.more_plots, f"{ident}-m", markup),
    }


def pictures_of(plots: Sequence[Plot], ident: str, markup: Any) -> list[dict[str, Any]]:
    """Each plot as it is drawn; one without a finite number has its sentence alone."""
    out = []
    for number, plot in enumerate(plots):
        found = svg(plot, f"{ident}{number}")
        rest = {"svg": "", "legend": [], "data": "", "note": plot.broken or "It has no numbers."} if found is None else found
        out.append({"title": plot.title, **rest, "svg": markup(rest["svg"])})
    return out


def bars(scores: Scores, markup: Any) -> list[dict[str, Any]]:
    """Rows of measures, each with its interval as a small picture from 0 to the most of its row, and a tick for what it is compared with."""
    rows = []
    for each in scores.rows:
        known = [value for value in (each.value, each.low, each.high, each.other) if value is not None]
        low, high = min(0.0, *known), max(*known, 0.0)
        place = lambda value, low=low, high=high: 4 + 112 * (value - low) / ((high - low) or 1.0)
        whisker = (
            f'<line class="whisker" x1="{place(each.low):.1f}" x2="{place(each.high):.1f}" y1="8" y2="8"/>'
            if each.low is not None and each.high is not None
            else ""
        )
        tick = (
            "" if each.other is None else f'<line class="other" x1="{place(each.other):.1f}" x2="{place(each.other):.1f}" y1="2" y2="14"/>'
        )
        dot = f'<circle class="dot" cx="{place(each.value):.1f}" cy="8" r="3"/>'
        rows.append(
            {
                **vars(each),
                "value": f"{each.value:.4g}",
                "interval": "none of so few" if each.low is None or each.high is None else f"{each.low:.4g} to {each.high:.4g}",
                "other": "" if each.other is None else f"{each.other:.4g}",
                "bar": markup(f'<svg class="bar" viewBox="0 0 120 16" aria-hidden="true">{whisker}{tick}{dot}</svg>'),
            }
        )
    return rows
