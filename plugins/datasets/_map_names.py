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
from ._splits import FILLERS
from ._tree import File

ORDER = "masks mask segmentations segmentation segmaps segmap seg labelmaps labelmap maps map labels label annotations annotation anno trimaps trimap"
WORDS = {word: place for place, word in enumerate(ORDER.split())}  # of several kinds beside each other the first is taken
ENDING = re.compile(rf"[\s_.-]+({'|'.join(WORDS)}|gt)$", re.IGNORECASE)  # of a map's name that its picture's has not: `1_mask.png`
Key = tuple[tuple[str, ...], str]


def top_of_maps(folder: str, above: int) -> str:
    """The folder of maps that this folder is or lies in, '' where it lies in none; the first `above` parts say nothing."""
    parts = folder.split("/")
    return next(("/".join(parts[: place + 1]) for place in range(above, len(parts)) if kind(parts[place]) is not None), "")


def kind(name: str) -> int | None:
    """Where the word in a folder's name that speaks of maps stands in ORDER; None where there is none."""
    return next((WORDS[word] for word in words(name) if word in WORDS), None)


def words(name: str) -> list[str]:
    """`train`, `masks` of `trainMasks` or `Train-Masks`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", composed(name)).casefold()
    return [word for word in re.split(r"[\W_]+", spaced) if word]


def key_of(folder: str, file: File) -> Key:
    """What a picture and its map have in common: folders without the words for pictures and maps, and the name without its ending."""
    return bare(folder), os.path.splitext(alike(file.path.rpartition("/")[2]))[0]


@lru_cache(maxsize=4096)
def bare(folder: str) -> tuple[str, ...]:
    """`train` of `images/train`, `train_masks` and `train/labels`."""
    parts = (" ".join(word for word in words(part) if word not in FILLERS and word not in WORDS) for part in folder.split("/"))
    return tuple(each for each in parts if each)


def keys_of(file: File, *, without: str = "") -> Iterator[Key]:
    """The keys that a map's picture may have, the surest first; `without` is a folder that says nothing."""
    folder = re.sub(rf"(^|/){re.escape(without)}(?=/|$)", "", file.folder, count=1).strip("/") if without else file.folder
    folders, stem = key_of(folder, file)
    yield folders, stem
    if (short := ENDING.sub("", stem)) != stem:
        yield folders, short


def match_names(
    maps: Iterable[File], owners: dict[Key, list[str]], *, without: str = "", stems: dict[str, list[str]] | None = None
) -> dict[str, File]:
    """The map of each picture that has one. Of several .png comes first; where a map may be that of pictures in several folders it is nobody's."""
    out: dict[str, File] = {}
    for file in sorted(maps, key=lambda file: (_formats.ending(file.path) != ".png", file.path)):
        found = next((paths for key in keys_of(file, without=without) if (paths := owners.get(key))), None)
        if found is None and stems is not None:
            found = next((paths for _, stem in keys_of(file, without=without) if (paths := stems.get(stem))), None)
        if found and len({path.rpartition("/")[0] for path in found}) == 1:
            for path in found:
                out.setdefault(path, file)
    return out
