"""A look at a data set before anything is trained: what is in it, what is broken, what would be done with it, and what to change."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from ldmctl.console import Console
from ldmctl.errors import DataError
from ldmctl.pictures import alike, check_maps
from ldmctl.pictures.alike import Glance
from ldmctl.pictures.check_maps import MapLook, look_at_map
from ldmctl.pictures.check_sentences import of_frames, sentences
from ldmctl.pictures.choosing import named
from ldmctl.pictures.opening import BROKEN, MOST, limits
from ldmctl.pictures.pillow import Settings, load, size_of
from ldmctl.pictures.stored_maps import frame_of
from ldmctl.protocols import Dataset

ENOUGH = 128  # pixels that a JPEG is decoded to at least: colours and small forms need no more
AT_ONCE = 256  # pictures that are decoded together
SHOWN = 10  # of a list


@dataclass(frozen=True)
class Look:
    """One picture as it lies there; `why` is what is wrong with one that cannot be read, of which nothing else is known."""

    name: str
    split: str
    index: int
    why: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    label: int = -1
    text: str = ""
    glance: Glance | None = None
    mean: tuple[float, ...] = ()  # of red, green and blue, 0 to 1
    square: tuple[float, ...] = ()  # of their squares
    grey: bool = False
    map: MapLook | None = None
    several: bool = False  # frames or pages


def look(dataset: Dataset, split: str, index: int, settings: Settings) -> Look:
    """A picture decoded as small as will do; what Pillow cannot read is said."""
    name = named(dataset.stamp(index))
    try:
        example = dataset[index]
        size, mode = size_of(example.picture), getattr(example.picture, "mode", "array")
        frame, several = frame_of(example.picture, None), has_several(name, example.picture)
        most = getattr(settings, "max_pixels", MOST)
        image = load(example.picture, channels=3, background=settings.background, enough=ENOUGH, max_pixels=most)
        image.thumbnail((ENOUGH, ENOUGH), Image.Resampling.BOX)
        pixels = np.asarray(image, np.float32) / 255
        grey = bool(np.abs(pixels - pixels.mean(2, keepdims=True)).max() < 0.02)
        colour = pixels.reshape(-1, 3)
        values = (tuple(colour.mean(0).tolist()), tuple(np.square(colour).mean(0).tolist()))
        known = (size, mode, int(example.label), example.text, alike.glance(image), *values, grey)
        seen = look_at_map(example.map, frame, settings, getattr(dataset, "map_classes", ()), name)
        return Look(name, split, index, "", *known, seen, several)
    except (DataError, *BROKEN) as error:
        return Look(name, split, index, " ".join(str(error).split()) or type(error).__name__)


def has_several(name: str, picture: Any) -> bool:
    """Whether a picture has several frames or pages; a JPEG with a second picture for its maker has none."""
    return not name.lower().endswith((".jpg", ".jpeg")) and bool(getattr(picture, "is_animated", False))


def look_at_all(splits: dict[str, Dataset], settings: Settings, console: Console) -> list[Look]:
    """Every picture of every split, on as many threads as there are cores: Pillow decodes outside of Python's lock."""
    wanted = [(dataset, split, index) for split, dataset in splits.items() for index in range(len(dataset))]
    found: list[Look] = []
    with console.bar("checking", len(wanted)) as bar, ThreadPoolExecutor(os.cpu_count() or 1) as pool, limits(MOST):
        for first in range(0, len(wanted), AT_ONCE):
            found += pool.map(lambda each: look(each[0], each[1], each[2], settings), wanted[first : first + AT_ONCE])
            bar.advance(len(found), amount=len(found))
    if not any(not each.why for each in found):
        raise DataError(
            f"None of the {len(found):,} pictures can be read. The first: {found[0].why}" if found else "There are no pictures."
        )
    return found


def nearly_the_same(looks: Sequence[Look], console: Console) -> list[list[Look]]:
    """Sets of pictures that are nearly the same, of all splits."""
    good = [each for each in looks if each.glance is not None]
    glances = [each.glance for each in good if each.glance is not None]
    with console.bar("comparing", len(good)) as bar:
        found = alike.groups(len(good), alike.pairs(glances, lambda done: bar.advance(done, amount=done)))
    return [[good[place] for place in group] for group in found]


def check(
    looks: Sequence[Look], twins: Sequence[Sequence[Look]], classes: Sequence[str], settings: Settings, *, map_classes: Sequence[str] = ()
) -> dict[str, Any]:
    """What was found, `twins` among it, as plain values: "splits", "sizes", "modes", "broken", "small", "crop", "duplicates", "classes", "captions", "maps", "colour",
    and in "sentences" what a person should know or change."""
    good, broken = [each for each in looks if not each.why], [each for each in looks if each.why]
    found: dict[str, Any] = {
        "splits": dict(Counter(each.split for each in looks)),
        "broken": {"count": len(broken), "first": [{"name": each.name, "why": each.why} for each in broken[:SHOWN]]},
        "sizes": sizes(good, settings),
        "modes": dict(Counter(each.mode for each in good).most_common()),
        "duplicates": duplicates(twins),
        "classes": balance(good, classes),
        "captions": captions(good),
        "maps": check_maps.maps([(each.name, each.map) for each in good], map_classes),
        "colour": colour(good),
    }
    several = [each.name for each in good if each.several]
    return {**found, "sentences": [each for each in [*sentences(found, settings), of_frames(several)] if each]}


def sizes(good: Sequence[Look], settings: Settings) -> dict[str, Any]:
    """Shorter sides, shapes, and what a square of `settings.size` costs."""
    short = [min(each.size) for each in good]
    lost = [1 - min(each.size) / max(each.size) for each in good]
    small = [each for each, side in zip(good, short, strict=True) if side < settings.size]
    return {
        "shorter_side": {"least": min(short), "median": median(short), "most": max(short)},
        "common": [[f"{width}x{height}", count] for (width, height), count in Counter(each.size for each in good).most_common(5)],
        "not_square": sum(each.size[0] != each.size[1] for each in good),
        "cropped_away": {"mean": sum(lost) / len(lost), "most": max(lost)},
        "asked": settings.size,
        "small": {"count": len(small), "first": [each.name for each in small[:SHOWN]]},
    }


def duplicates(sets: Sequence[Sequence[Look]]) -> dict[str, Any]:
    """How many sets of pictures that are nearly the same; those in several splits are leaks."""
    leaks = [group for group in sets if len({each.split for each in group}) > 1]
    show = lambda groups: [[f"{each.split}: {each.name}" for each in group[:SHOWN]] for group in groups[:SHOWN]]
    return {"sets": len(sets), "spare": sum(map(len, sets)) - len(sets), "first": show(sets), "leaks": len(leaks), "leaked": show(leaks)}


def balance(good: Sequence[Look], classes: Sequence[str]) -> dict[str, Any]:
    """How many training pictures each class has."""
    counted = Counter(each.label for each in good if each.split == "train")
    return {"counts": {name: counted[index] for index, name in enumerate(classes)}, "without": counted[-1] if classes else 0}


def captions(good: Sequence[Look]) -> dict[str, Any] | None:
    """How many there are, how long, how often repeated; None without any."""
    texts = [each.text.strip() for each in good]
    there = [text for text in texts if text]
    if not there:
        return None
    common, times = Counter(there).most_common(1)[0]
    words = [len(text.split()) for text in there]
    return {
        "count": len(there),
        "empty": len(texts) - len(there),
        "different": len(set(there)),
        "commonest": {"text": common, "count": times},
        "words": {"median": median(words), "most": max(words)},
    }


def colour(good: Sequence[Look]) -> dict[str, Any]:
    """Mean and deviation of red, green and blue over all pictures, each counted once, and how many are grey."""
    mean = np.mean([each.mean for each in good], axis=0)
    deviation = np.sqrt(np.maximum(np.mean([each.square for each in good], axis=0) - mean**2, 0))
    return {
        "mean": mean.round(4).tolist(),
        "deviation": deviation.round(4).tolist(),
        "grey": sum(each.grey for each in good),
        "of": len(good),
    }
