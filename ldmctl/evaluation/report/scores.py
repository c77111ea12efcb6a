"""The chapters of what eval-samples measured: of samples, and of snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmctl.evaluation.report.parts import Chapter, Found, Plot, Score, Scores, Series, Sheet, listing, objects, part, written
from ldmctl.evaluation.report.pictures import Album, said_below
from ldmctl.storage.runs import finite, whole

SHEETS = {"closest.png": "Samples and the training pictures nearest to them", "alike.png": "Samples and the samples nearest to them"}
CLASSES = 20  # shown unfolded


def samples_judged(file: Path, found: Found, album: Album) -> Chapter:
    """What judgement.json says."""
    extractor = part(found, "extractor")
    chapter = Chapter(
        "Scores of samples",
        str(file),
        f"{written(found.get('count'))} {found.get('of')}, against {written(found.get('references'))} real pictures.",
    )
    chapter.fact("extractor", f"{extractor.get('name')}, {written(extractor.get('features'))} features")
    chapter.fact("pictures resized to", str(extractor.get("resize") or ""))
    chapter.fact("fingerprint of the extractor", str(extractor.get("fingerprint") or "")[:20])
    leveled = {str(each.get("sentence")): str(each.get("level")) for each in objects(found, "judgements")}
    chapter.verdict = [(leveled.get(str(each), ""), str(each)) for each in listing(found, "verdict")]
    rows = [score(str(each.get("title") or name), each) for name, each in part(found, "measures").items() if isinstance(each, Mapping)]
    if asked := part(found, "asked"):
        rows.append(score(f"seen as asked ({asked.get('judge')})", asked))
    if words := part(found, "words"):
        rows.append(score("words seen as asked", words))
    if known := [each for each in rows if each is not None]:
        chapter.scores.append(Scores("Measures with 95 % intervals", "real against real", known))
    chapter.sheets += [*by_class(part(found, "classes")), *by_word(part(words, "words"))]
    if copies := part(found, "memorisation"):
        chapter.sheets.append(nearness(copies))
    for name, title in SHEETS.items():
        if (sheet := file.parent / name).exists() and (
            figure := album.add(sheet, f"{title}. {said_below(sheet)}", f"{title}. {said_below(sheet)}")
        ):
            chapter.figures.append(figure)
    return chapter


def curve_judged(file: Path, found: Found) -> Chapter:
    """What curve.json says: a row for each snapshot."""
    rows = objects(found, "curve")
    chapter = Chapter(
        "Scores of snapshots", str(file), f"{len(rows):,} models of {found.get('of')}, seen by {part(found, 'extractor').get('name')}."
    )
    chapter.verdict = [("", str(each)) for each in listing(found, "verdict")]
    names = ("frechet_distance", "precision", "recall")
    cells = [[str(each.get("run")), written(each.get("step")), *(interval(part(each, name)) for name in names)] for each in rows]
    chapter.sheets.append(Sheet("Each model, with 95 % intervals", ["model", "step", "Frechet distance", "precision", "recall"], cells))
    known = sorted((each for each in rows if whole(each.get("step")) is not None), key=lambda each: each["step"])
    if len(known) > 1:
        values = [finite(part(each, names[0]).get("value")) for each in known]
        chapter.plots.append(Plot("Frechet distance", [Series("Frechet distance", [each["step"] for each in known], values)]))
    return chapter


def by_class(classes: Found) -> list[Sheet]:
    """A row for each class."""
    rows = []
    for name, each in classes.items():
        if isinstance(each, Mapping):
            asked, own = part(each, "asked"), part(each, "measures")
            distance, covered = part(own, "frechet_distance"), part(own, "coverage")
            right = finite(asked.get("value"))
            cells = [
                "" if right is None else f"{right:.1%}",
                interval(distance) if distance else "too few",
                interval(covered) if covered else "",
            ]
            rows.append([str(name), written(each.get("count")), *cells])
    head = ["class", "samples", "seen as asked", "Frechet distance", "coverage"]
    return [Sheet("By class", head, rows, folded=len(rows) > CLASSES)] if rows else []


def by_word(words: Found) -> list[Sheet]:
    """A row for each word that samples were asked for and the judge can tell."""
    rows = []
    for word, each in words.items():
        if isinstance(each, Mapping) and each.get("told"):
            shares = [finite(place.get(name)) for name in ("seen", "unasked") for place in (each, part(each, "real"))]
            rows.append([str(word), written(each.get("count")), *("" if share is None else f"{share:.1%}" for share in shares)])
    head = ["word", "samples", "seen as asked", "in real pictures", "seen unasked", "in real pictures"]
    return [Sheet("By word of the prompts", head, rows, folded=len(rows) > CLASSES)] if rows else []


def nearness(copies: Found) -> Sheet:
    """How near samples are to training pictures, beside ordinary pictures."""
    rows = []
    for name in ("features", "pixels"):
        each = part(copies, name)
        rows.append([name, *(short(each.get(key)) for key in ("median", "ordinary_median", "bound"))])
    return Sheet(
        f"Distance to the nearest training picture, beside {copies.get('ordinary')}",
        ["in", "samples, median", "others, median", "bound of a copy"],
        rows,
    )


def score(title: str, each: Found) -> Score | None:
    """A measure; None of one without a value."""
    value = finite(each.get("value"))
    return (
        None
        if value is None
        else Score(title, value, finite(each.get("low")), finite(each.get("high")), finite(part(each, "real").get("value")))
    )


def interval(each: Found) -> str:
    """`12.3 (11.9 to 12.8)`."""
    value, low, high = (finite(each.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return ""
    return f"{value:.4g}" if low is None or high is None else f"{value:.4g} ({low:.4g} to {high:.4g})"


def short(value: Any) -> str:
    """Four digits."""
    number = finite(value)
    return "" if number is None else f"{number:.4g}"
