"""What a person should know of a data set that was looked at, with the keys that change it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ldmctl.pictures import check_maps
from ldmctl.pictures.pillow import Settings


def sentences(found: dict[str, Any], settings: Settings) -> list[str]:
    """What a person should know, with the keys that change it."""
    total, size, twice = sum(found["splits"].values()), found["sizes"], found["duplicates"]
    broken, small, shades = found["broken"]["count"], size["small"]["count"], found["colour"]
    return [
        ""
        if found["splits"].get("val")
        else "No picture is held out, so a run cannot tell what it learns by heart. A folder val/, or more pictures, hold some out.",
        f"{broken:,} of {total:,} pictures cannot be read; more than one in a hundred stops a run. Mend or remove them." if broken else "",
        (
            f"{of(small)} smaller than image.size={size['asked']} and would be enlarged. image.smallest={size['asked']} leaves them out, "
            f"a smaller image.size keeps all."
            if small
            else ""
        ),
        (
            f"image.crop cuts off {size['cropped_away']['mean']:.0%} of a picture on average, {size['cropped_away']['most']:.0%} at most: they are not "
            "square. Crop them yourself where the middle is not what matters."
            if size["cropped_away"]["mean"] > 0.05
            else ""
        ),
        f"{of(twice['spare'])} {'a near-duplicate of another' if twice['spare'] == 1 else 'near-duplicates of others'} and would be learned by heart "
        "sooner. Remove what is spare."
        if twice["spare"]
        else "",
        (
            f"{twice['leaks']:,} {'set' if twice['leaks'] == 1 else 'sets'} of near-duplicates in train and val at once: held-out numbers would be too good. "
            "--write-split puts each set on one side."
            if twice["leaks"]
            else ""
        ),
        _of_colour(shades, settings.channels),
        *of_classes(found["classes"]),
        *of_captions(found["captions"]),
        *check_maps.sentences(found["maps"]),
    ]


def of(count: int) -> str:
    """`1 picture is`, `2 pictures are`."""
    return "1 picture is" if count == 1 else f"{count:,} pictures are"


def having(count: int, noun: str = "") -> str:
    """`1 picture has`, `2 pictures have`."""
    named = f" {noun if count == 1 else noun + 's'}" if noun else ""
    return f"{count:,}{named} {'has' if count == 1 else 'have'}"


def of_frames(names: Sequence[str]) -> str:
    """A sentence on pictures with several frames or pages; '' without any."""
    return f"{of(len(names))} of several frames or pages, of which only the first is read, such as {names[0]}." if names else ""


def _of_colour(found: dict[str, Any], channels: int) -> str:
    if channels != 1 and found["grey"] == found["of"]:
        return "All pictures are grey: image.channels=1 makes everything faster, with the same result."
    if channels == 1 and found["grey"] < found["of"]:
        return f"{of(found['of'] - found['grey'])} in colour, and image.channels=1 takes it away."
    return ""


def of_classes(found: dict[str, Any]) -> list[str]:
    empty = [name for name, count in found["counts"].items() if not count]
    counts: dict[str, int] = {name: count for name, count in found["counts"].items() if count}
    rare, common = (choose(counts, key=lambda name: counts[name], default="") for choose in (min, max))
    return [
        f"The class {empty[0]!r} has no training picture: it can never be asked for." if len(empty) == 1 else "",
        f"{len(empty)} classes have no training picture, the first {empty[0]!r}: they can never be asked for." if empty[1:] else "",
        (
            f"Classes are uneven: {counts[common]:,} of {common!r}, {counts[rare]:,} of {rare!r}, which will be learned late and by heart."
            if counts and counts[common] > 10 * counts[rare]
            else ""
        ),
        f"{having(found['without'], 'training picture')} no label." if found["without"] else "",
    ]


def of_captions(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    common = found["commonest"]
    return [
        f"{having(found['empty'], 'picture')} no caption, and {having(found['count'])} one." if found["empty"] else "",
        (
            f"Captions repeat: {found['different']:,} different {'one' if found['different'] == 1 else 'ones'}, {common['text']!r} {common['count']:,} times."
            if found["different"] < found["count"] / 2
            else ""
        ),
    ]
