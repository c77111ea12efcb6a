"""By which names a folder is one of maps, and a map that of a picture.

`train/masks/1.png`, `masks/train/1.png`, `train_masks/1.png` and `train/masks/1_mask.png` all belong to `train/1.jpg` or
`images/train/1.jpg`: what counts are the folders without the words for pictures and maps, and the name without its ending.
"""

import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from . import _formats
from ._names import alike, composed
from ._splits import FILLERS, HELD, TRAIN
from ._tree import File

ORDER = "masks mask segmentations segmentation segmaps segmap seg labelmaps labelmap maps map labels label annotations annotation annots annot anno trimaps trimap"
WORDS = {word: place for place, word in enumerate(ORDER.split())}  # of several kinds beside each other the first is taken
CITY = r"gt(?:fine|coarse)"  # Cityscapes: gtFine/a_gtFine_labelIds.png is the map of leftImg8bit/a_leftImg8bit.png
PHOTOS = "leftimg8bit"
ENDING = re.compile(rf"[\s_.-]+({'|'.join(WORDS)}|gt|l|{CITY}[\s_.-]\w+)$", re.IGNORECASE)  # that its picture has not: `1_mask.png`
NUMBERS = re.compile(rf"[\s_.-]{CITY}_label(?:train)?ids$", re.IGNORECASE)  # of several maps of one picture the one of classes
BESIDE = frozenset(["class", "classes", "object", "objects", "instance", "instances", "raw", "aug"])  # words beside `Segmentation`
SINGLE = frozenset(["object", "objects", "instance", "instances"])  # maps that number each thing, not its class
Key = tuple[tuple[str, ...], str]


def top_of_maps(folder: str, above: int) -> str:
    """The folder of maps that this folder is or lies in, '' where it lies in none; the first `above` parts say nothing."""
    parts = folder.split("/")
    return next(("/".join(parts[: place + 1]) for place in range(above, len(parts)) if kind(parts[place]) is not None), "")


def kind(name: str) -> int | None:
    """The rank of a folder by the word in its name that speaks of maps, as they stand in ORDER; None where there is none."""
    found = words(name)
    place = next((WORDS[word] for word in found if word in WORDS), WORDS["segmentation"] if re.match(CITY, name.casefold()) else None)
    return None if place is None else 2 * place + (not SINGLE.isdisjoint(found))


def words(name: str) -> list[str]:
    """`train`, `masks` of `trainMasks`, `Train-Masks` or `trainmasks`; `jpeg`, `images` of `JPEGImages`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", composed(name)).casefold()
    return [part for word in re.split(r"[\W_]+", spaced) if word for part in _parted(word)]


def _parted(word: str) -> list[str]:
    """`train`, `annot` of `trainannot`; other words as they are."""
    ends = (end for end in WORDS if word.endswith(end) and word.removesuffix(end) in (*TRAIN, *HELD))
    end = next(ends, "")
    return [word.removesuffix(end), end] if end else [word]


def key_of(folder: str, file: File) -> Key:
    """What a picture and its map have in common: folders without the words for pictures and maps, and the name without its ending."""
    return bare(folder), os.path.splitext(alike(file.path.rpartition("/")[2]))[0].removesuffix(f"_{PHOTOS}")


@lru_cache(maxsize=4096)
def bare(folder: str) -> tuple[str, ...]:
    """`train` of `images/train`, `train_masks` and `train/labels`."""
    return tuple(each for part in folder.split("/") if (each := _bare(part)))


def _bare(part: str) -> str:
    if part.casefold().startswith(PHOTOS) or re.match(CITY, part.casefold()):
        return ""
    found = words(part)
    nothing = {*FILLERS, *WORDS, "jpeg", *(BESIDE if kind(part) is not None else ())}
    return " ".join(word for word in found if word not in nothing)


def keys_of(file: File, *, without: str = "") -> Iterator[Key]:
    """The keys that a map's picture may have, the surest first; `without` is a folder that says nothing."""
    folder = re.sub(rf"(^|/){re.escape(without)}(?=/|$)", "", file.folder, count=1).strip("/") if without else file.folder
    folders, stem = key_of(folder, file)
    yield folders, stem
    if (short := ENDING.sub("", stem)) != stem:
        yield folders, short


def _stem(file: File) -> str:
    return os.path.splitext(file.path)[0]


def match_names(
    maps: Iterable[File], owners: dict[Key, list[str]], *, without: str = "", stems: dict[str, list[str]] | None = None
) -> dict[str, File]:
    """The map of each picture that has one. Of several .png comes first; where a map may be that of pictures in several folders it is nobody's."""
    out: dict[str, File] = {}
    for file in sorted(maps, key=lambda file: (_formats.ending(file.path) != ".png", not NUMBERS.search(_stem(file)), file.path)):
        found = next((paths for key in keys_of(file, without=without) if (paths := owners.get(key))), None)
        if found is None and stems is not None:
            found = next((paths for _, stem in keys_of(file, without=without) if (paths := stems.get(stem))), None)
        if found and len({path.rpartition("/")[0] for path in found}) == 1:
            for path in found:
                out.setdefault(path, file)
    return out
