"""The chapter that sets the scores of several samples side by side."""

from __future__ import annotations

from collections.abc import Sequence

from ldmctl.evaluation.report.parts import Chapter, Found, Sheet, part, written
from ldmctl.evaluation.report.scores import interval
from ldmctl.storage.runs import finite

SAME = {"extractor": "extractors", "count": "numbers of samples", "references": "numbers of real pictures"}  # or no two numbers compare


def scores_beside(names: Sequence[str], told: Sequence[Found]) -> Chapter:
    """A row for each measure; the best one says so where its interval lies apart from all others'."""
    chapter = Chapter("Side by side: scores", ", ".join(names), f"{len(names)} sets of samples.")
    unlike = [words for key, words in SAME.items() if len({known_by(each, key) for each in told}) > 1]
    if unlike:
        chapter.verdict = [("", f"Their {' and '.join(unlike)} differ, so these numbers have nothing to do with each other.")]
    measures = dict.fromkeys(name for each in told for name in part(each, "measures"))
    rows = []
    for name in measures:
        found = [part(part(each, "measures"), name) for each in told]
        best = None if unlike else apart(found, lower=name.endswith("distance"))
        cells = [f"{interval(each)}{', better' if place == best else ''}" for place, each in enumerate(found)]
        rows.append([next((str(each["title"]) for each in found if "title" in each), name), *cells])
    if any(part(each, "asked") for each in told):
        asked = [part(each, "asked") for each in told]
        best = None if unlike else apart(asked, lower=False)
        rows.append(["seen as asked", *(f"{interval(each)}{', better' if place == best else ''}" for place, each in enumerate(asked))])
    chapter.sheets.append(
        Sheet("Measures with 95 % intervals; a better one says so where intervals do not meet", ["measure", *names], rows)
    )
    return chapter


def known_by(found: Found, key: str) -> str:
    """What must be the same for numbers to compare."""
    extractor = part(found, "extractor")
    return written(extractor.get("fingerprint") or extractor.get("name")) if key == "extractor" else written(found.get(key))


def apart(found: Sequence[Found], *, lower: bool) -> int | None:
    """The place of the best interval, where it meets no other; None where it does, or where one has none."""
    ends = [(finite(each.get("low")), finite(each.get("high"))) for each in found]
    sign = 1 if lower else -1
    known = [
        (sign * (low if lower else high), sign * (high if lower else low)) for low, high in ends if low is not None and high is not None
    ]
    if len(known) < len(found):
        return None
    best = min(range(len(known)), key=lambda place: known[place][0])
    return best if all(known[best][1] < near for place, (near, _) in enumerate(known) if place != best) else None
