"""The chapter that sets runs of one verb side by side."""

from __future__ import annotations

from collections.abc import Sequence

from ldmctl.evaluation.contrast import contrast
from ldmctl.evaluation.report.curves import SPREAD
from ldmctl.evaluation.report.curves import beside as curves_beside
from ldmctl.evaluation.report.parts import Chapter, Sheet, written
from ldmctl.evaluation.report.pictures import Album, previews
from ldmctl.evaluation.report.training import SHOWN
from ldmctl.storage.runs import Look


def beside(looks: Sequence[Look], album: Album) -> Chapter:
    """In what they differ, whose numbers are better, their curves in one picture, and the last preview of each."""
    found, names = contrast(looks), [str(each.folder) for each in looks]
    chapter = Chapter(f"Side by side: {looks[0].verb}", ", ".join(names), f"{len(looks)} runs of {looks[0].verb}.")
    chapter.verdict = [("", each) for each in found["cautions"]]
    rows = [[row["key"], *map(written, row["values"])] for row in found["config"]]
    chapter.sheets.append(
        Sheet("Keys in which they differ", ["key", *names], rows) if rows else Sheet("Their configs are the same", ["key", *names], [])
    )
    steps = ["step", *("" if step is None else f"{step:,}" for step in found["steps"])]
    numbers = [
        [row["name"], *(cell(value, place == row["better"]) for place, value in enumerate(row["values"]))] for row in found["metrics"]
    ]
    if numbers:
        chapter.sheets.append(Sheet("Last numbers (the better one says so)", ["number", *names], [steps, *numbers]))
    chapter.plots = curves_beside(looks, names)
    if len(looks) > SPREAD:
        chapter.troubles.append(f"Curves are of the first {SPREAD} runs: name fewer to see others.")
    for each, name in zip(looks, names, strict=True):
        if shown := previews(each.folder / "samples", album, SHOWN.get(each.verb or "", "preview"), most=1):
            chapter.groups.append((f"{name}, {shown[0].caption}", shown))
    return chapter


def cell(value: float | None, is_better: bool) -> str:
    """`0.123, better`."""
    return "" if value is None else f"{value:.4g}{', better' if is_better else ''}"
