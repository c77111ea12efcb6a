"""One HTML page of runs, caches, samples and scores: each a chapter, in the order of work, with what they were made from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ldmctl.console import Console
from ldmctl.errors import MismatchError
from ldmctl.evaluation.report.beside import beside
from ldmctl.evaluation.report.cache import cache
from ldmctl.evaluation.report.chain import RUNS, Found, chain, held, pictures_of_others
from ldmctl.evaluation.report.data import data_checked
from ldmctl.evaluation.report.page import GENERATOR, page
from ldmctl.evaluation.report.parts import Chapter
from ldmctl.evaluation.report.pictures import Album
from ldmctl.evaluation.report.samples import samples
from ldmctl.evaluation.report.scores import curve_judged, samples_judged
from ldmctl.evaluation.report.scores_beside import scores_beside
from ldmctl.evaluation.report.training import training
from ldmctl.pictures.album import pictures_in
from ldmctl.storage import apart, history
from ldmctl.storage.atomic import write_text
from ldmctl.storage.folder import make_folder
from ldmctl.storage.runs import Look, look

EVERY = 15  # seconds between two pages that are watched


def report(paths: Sequence[str], out: str | Path, *, console: Console, alone: bool = False, watch: bool = False) -> dict[str, Any]:
    """{"report", "bytes", "chapters": [{"title", "path"}], "troubles"}: the page is written to `out`.

    With what the named ones were made from, and what was made of them, unless they are to stand `alone`. To `watch` renews the page while one of
    them is running.
    """
    places = [apart.folder_of(path) for path in paths]
    named = [one for place in places for one in held(place)]
    file = Path(out).expanduser()
    refuse_out(file, places)
    if watch:
        console.say(f"{file} is renewed every {EVERY} seconds while a run goes on; Ctrl-C ends that.")
    while True:
        troubles: list[str] = []
        found = named if alone else chain(named, troubles)
        looks = {one.path: look(one.path) for one in found if one.kind in RUNS}
        again = watch and any(each.state == "running" for each in looks.values())
        chapters, lost = told(found, looks, named)
        title = f"Report of {', '.join(paths)}"
        made = f"Made by ldmctl {version('ldmctl')} on {history.now().replace('T', ', ').removesuffix('+00:00')} UTC."
        text = page(chapters, title=title, made=made, troubles=[*troubles, *lost], again=EVERY if again else None)
        write_text(file, text)
        if not again:
            break
        try:
            time.sleep(EVERY)
        except KeyboardInterrupt:  # once more, as a page that stays as it is
            watch = False
    for sentence in [*troubles, *lost]:
        console.warn(sentence)
    console.say(f"The report is {file}, {len(text.encode()) / 1e6:.1f} MB: open it in a browser.")
    return {
        "report": str(file),
        "bytes": len(text.encode()),
        "chapters": [{"title": each.title, "path": each.path} for each in chapters],
        "troubles": [*troubles, *lost, *(sentence for each in chapters for sentence in each.troubles)],
    }


def told(found: Sequence[Found], looks: dict[Path, Look], named: Sequence[Found]) -> tuple[list[Chapter], list[str]]:
    """(a chapter for each, before them those that set named runs of one verb side by side; why pictures are missing)."""
    album, chapters = Album(), []
    for verb in RUNS:
        several = [looks[one.path] for one in found if one.kind == verb and any(each.path == one.path for each in named)]
        if len(several) > 1:
            chapters.append(beside(several, album))
    if len(judged := [one for one in found if one.kind == "scores"]) > 1:
        chapters.append(scores_beside([str(one.path) for one in judged], [one.said or {} for one in judged]))
    for one in found:
        chapters.append(chapter_of(one, looks, album))
    return chapters, album.sentences()


def chapter_of(one: Found, looks: dict[Path, Look], album: Album) -> Chapter:
    """What there is to tell of one thing."""
    said = one.said or {}
    if one.kind == "encode-dataset":
        return cache(looks[one.path])
    if one.path in looks:
        return training(looks[one.path], album)
    if one.kind == "samples":
        return samples(one.path, sorted(pictures_in(one.path)) or pictures_of_others(one.path), album)
    return (
        data_checked(one.path, said, album)
        if one.kind == "data"
        else curve_judged(one.path, said)
        if one.kind == "curve"
        else samples_judged(one.path, said, album)
    )


def refuse_out(file: Path, places: Sequence[Path]) -> None:
    """An error where the page would take the place of something else, or lie in what it tells of; the folder is made."""
    for place in places:
        apart.refuse(file, [apart.Read(f"{place}", place), *apart.reads_of({"run": str(place)})], verb="report", owns=False)
    if file.is_dir():
        raise MismatchError(f"{file} is a folder; --out wants the name of a file, such as {file / 'report.html'}.")
    if file.exists() and f'content="{GENERATOR}"' not in file.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise MismatchError(
            f"{file} is there already and was not made by ldmctl report, so it is not replaced. Name another --out, or move it."
        )
    make_folder(file.parent)
