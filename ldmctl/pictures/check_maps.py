"""What `data check` finds of maps: which cannot be used, which sizes differ, and what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ldmctl.errors import DataError
from ldmctl.pictures.opening import BROKEN, MOST, opened
from ldmctl.pictures.pillow import Settings
from ldmctl.pictures.stored_maps import MANY, UNLABELLED, Frame, are_classes, may_hold_labels, numbers, turn_for

SHOWN = 10  # of a list


@dataclass(frozen=True)
class MapLook:
    """One map as it lies there; `why` is what is wrong with one that cannot be used, of which nothing else is known."""

    why: str = ""
    resized: bool = False  # whether it has another size than its picture
    channels: int = 1
    numbers: dict[int, int] = field(default_factory=dict)  # pixels by number; {} where they are too many to be classes
    plain: bool = True  # whether it may hold numbers of classes at all


def look_at_map(given: Any, frame: Frame, settings: Settings, classes: Sequence[str], name: str) -> MapLook | None:
    """A map decoded, None where the picture has none; what Pillow cannot read is said. `frame` and `name` are the picture's."""
    if given is None:
        return None
    try:
        given = opened(given) if not isinstance(given, Image.Image) and not hasattr(given, "__array__") else given
        plain = bool(classes) or may_hold_labels(given)
        array = numbers(
            given, labels=bool(classes) or (plain and isinstance(given, Image.Image)), most=getattr(settings, "max_pixels", MOST)
        )
        size = (array.shape[2], array.shape[1])
        turn_for(given, size, frame, name)
        values, counts = np.unique(array, return_counts=True)
        few = len(array) == 1 and ((plain and len(set(values.tolist()) - {UNLABELLED}) <= MANY) or bool(classes))
        found = dict(zip(values.tolist(), counts.tolist(), strict=True)) if few else {}
        return MapLook(resized=size not in (frame.size, frame.upright), channels=len(array), numbers=found, plain=plain)
    except (DataError, *BROKEN) as error:
        return MapLook(" ".join(str(error).split()) or type(error).__name__)


def maps(good: Sequence[tuple[str, MapLook | None]], classes: Sequence[str]) -> dict[str, Any] | None:
    """How many there are and of which kind, those that cannot be used, and the classes by their share of all pixels; None without any.

    `good` are the pictures that can be read, by name.
    """
    looks = [(name, each) for name, each in good if each is not None]
    if not looks:
        return None
    sound, broken = [each for _, each in looks if not each.why], [(name, each.why) for name, each in looks if each.why]
    pixels: Counter[int] = Counter()
    within: Counter[int] = Counter()  # in how many maps
    for each in sound:
        pixels.update(each.numbers)
        within.update(each.numbers.keys())
    labels = bool(classes) or (all(each.plain and each.numbers for each in sound) and are_classes(set(pixels)))
    total = sum(pixels.values())
    known = sorted({*pixels, *range(len(classes))} - {UNLABELLED}) if labels else []
    return {
        "count": len(looks),
        "missing": len(good) - len(looks),
        "broken": {"count": len(broken), "first": [{"name": name, "why": why} for name, why in broken[:SHOWN]]},
        "resized": sum(each.resized for each in sound),
        "kind": "labels" if labels else "continuous",
        "channels": dict(Counter(each.channels for each in sound)),
        "classes": [
            {"number": number, "name": _name(number, classes), "share": round(pixels[number] / total, 6), "maps": within[number]}
            for number in known
        ],
        "unlabelled": round(pixels[UNLABELLED] / total, 6) if labels else 0.0,
        "unknown": [number for number in known if classes and number >= len(classes)],
    }


def _name(number: int, classes: Sequence[str]) -> str:
    return classes[number] if number < len(classes) else str(number)


def sentences(found: dict[str, Any] | None) -> list[str]:
    """What a person should know of the maps."""
    if found is None:
        return []
    broken, said = found["broken"], []
    if broken["count"]:
        said.append(
            f"{broken['count']:,} of {found['count']:,} maps cannot be used, the first of {broken['first'][0]['name']}: {broken['first'][0]['why']}"
        )
    if found["missing"]:
        verb = "picture has" if found["missing"] == 1 else "pictures have"
        said.append(f"{found['missing']:,} {verb} no map, and {found['count']:,} {'has' if found['count'] == 1 else 'have'} one.")
    if found["unknown"]:
        named = len(found["classes"]) - len(found["unknown"])
        numbers = ", ".join(map(str, found["unknown"][:SHOWN]))
        said.append(
            f"Maps hold the numbers {numbers}, and {named} classes are named, from 0 to {named - 1}: name the others too, or mend the maps."
        )
    if empty := [each["name"] for each in found["classes"] if not each["maps"]]:
        said.append(f"{len(empty)} {'class is' if len(empty) == 1 else 'classes are'} in no map, the first {empty[0]!r}.")
    if len(found["channels"]) > 1:
        counts = ", ".join(f"{count:,} with {channels}" for channels, count in sorted(found["channels"].items()))
        said.append(f"Maps differ in their channels ({counts}): all must have as many.")
    return said
