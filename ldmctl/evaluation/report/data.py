"""The chapter of what data check found in pictures before anything was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmctl.evaluation.report.parts import Chapter, Found, Sheet, listed, listing, objects, part, written
from ldmctl.evaluation.report.pictures import Album, said_below
from ldmctl.storage.runs import finite, whole

UNFOLDED = 20  # rows of a table that is not folded


def data_checked(file: Path, found: Found, album: Album) -> Chapter:
    """What check.json says of pictures."""
    splits = part(found, "splits")
    count = ", ".join(f"{written(number)} {split}" for split, number in splits.items())
    chapter = Chapter("Data", str(file), f"A look at pictures before anything was trained: {count}.")
    said = [str(each) for kind in ("warnings", "sentences") for each in listing(found, kind)]
    chapter.verdict, chapter.known = [("", each) for each in said], "What was found"
    tell_sizes(chapter, part(found, "sizes"))
    chapter.fact("modes", ", ".join(f"{mode} {written(number)}" for mode, number in part(found, "modes").items()))
    broken, twice, colour, maps = (part(found, name) for name in ("broken", "duplicates", "colour", "maps"))
    chapter.fact("unreadable", broken.get("count"))
    chapter.fact(
        "near-duplicates", f"{written(twice.get('spare'))} spare, {written(twice.get('leaks'))} in train and val at once" if twice else None
    )
    tell_captions(chapter, part(found, "captions"))
    tell_maps(chapter, maps)
    if colour:
        chapter.fact("colour", f"mean {numbers(colour.get('mean'))}, standard deviation {numbers(colour.get('deviation'))}")
        chapter.fact("grey", f"{written(colour.get('grey'))} of {written(colour.get('of'))}")
    chapter.sheets += [
        *unreadable("Unreadable pictures", broken),
        *leaks(twice),
        *unreadable("Maps that cannot be used", part(maps, "broken")),
    ]
    chapter.sheets += [*by_class(part(part(found, "classes"), "counts")), *by_map_class(objects(maps, "classes"))]
    if (sheet := file.parent / "contact.png").exists() and (
        figure := album.add(sheet, "Training pictures as they are trained on", said_below(sheet))
    ):
        chapter.figures.append(figure)
    return chapter


def tell_sizes(chapter: Chapter, sizes: Found) -> None:
    """Sides, the most frequent sizes, what a crop costs, and pictures that would be enlarged."""
    side, crop, small = (part(sizes, name) for name in ("shorter_side", "cropped_away", "small"))
    chapter.fact("shorter side", f"{side.get('least')} to {side.get('most')} pixels, {side.get('median')} in the middle")
    common = [each for each in listing(sizes, "common") if isinstance(each, list) and len(each) == 2]
    chapter.fact("most often", ", ".join(f"{name} ({written(number)})" for name, number in common[:3]))
    chapter.fact("not square", sizes.get("not_square"))
    if (mean := finite(crop.get("mean"))) is not None and (most := finite(crop.get("most"))) is not None:
        chapter.fact("left out by the crop", f"{mean:.1%} on average, {most:.0%} at most")
    if whole(small.get("count")):
        names = ", ".join(map(str, listing(small, "first")))
        chapter.fact(f"smaller than {written(sizes.get('asked'))} pixels", f"{written(small.get('count'))}: {names}")


def tell_captions(chapter: Chapter, captions: Found) -> None:
    """How many, how long, how many pictures have none, and the one that is repeated most."""
    if not captions:
        chapter.fact("captions", "none")
        return
    words, common = part(captions, "words"), part(captions, "commonest")
    chapter.fact("captions", f"{written(captions.get('count'))}, {written(captions.get('different'))} different")
    chapter.fact("without a caption", captions.get("empty") or None)
    if words:
        chapter.fact("words of a caption", f"{written(words.get('median'))} in the middle, {written(words.get('most'))} at most")
    if (times := whole(common.get("count"))) is not None and times > 1:
        chapter.fact("repeated most", f"{times:,} times: {written(str(common.get('text')))}")


def tell_maps(chapter: Chapter, maps: Found) -> None:
    """How many, of which kind, and what is wrong with some."""
    if not maps:
        return
    chapter.fact("maps", f"{written(maps.get('count'))}, {maps.get('kind')}")
    chapter.fact("pictures without a map", maps.get("missing") or None)
    chapter.fact("maps of another size than their picture", maps.get("resized") or None)
    if (share := finite(maps.get("unlabelled"))) is not None and share > 0:
        chapter.fact("pixels of maps without a class", f"{share:.1%}")


def unreadable(title: str, broken: Found) -> list[Sheet]:
    """A row for each of the first that cannot be used."""
    rows = [[str(each.get("name")), str(each.get("why"))] for each in objects(broken, "first")]
    return [Sheet(title, ["file", "why"], rows)] if rows else []


def leaks(twice: Found) -> list[Sheet]:
    """Near-duplicates in train and val at once."""
    rows = [[str(each[0]), ", ".join(map(str, each[1:]))] for each in listing(twice, "leaked") if isinstance(each, list) and each]
    return [Sheet("In train and val at once", ["picture", "and"], rows)] if rows else []


def by_class(counts: Mapping[str, Any]) -> list[Sheet]:
    """A row for each class, the largest first."""
    known = sorted(((str(name), number) for name, number in counts.items() if isinstance(number, int)), key=lambda each: -each[1])
    rows = [[name, f"{number:,}"] for name, number in known]
    return [Sheet("Classes", ["class", "pictures"], rows, folded=len(rows) > UNFOLDED)] if rows else []


def by_map_class(classes: list[Found]) -> list[Sheet]:
    """A row for each class of the maps, by its share of all pixels."""
    ordered = sorted(classes, key=lambda each: -(finite(each.get("share")) or 0.0))
    rows = [
        [str(each.get("name")), written(each.get("number")), f"{finite(each.get('share')) or 0.0:.2%}", written(each.get("maps"))]
        for each in ordered
    ]
    return (
        [Sheet("Classes of the maps", ["class", "number", "share of the pixels", "maps"], rows, folded=len(rows) > UNFOLDED)]
        if rows
        else []
    )


def numbers(values: Any) -> str:
    """Numbers of a list."""
    return listed([each for each in values if finite(each) is not None]) if isinstance(values, list) else ""
