"""By which names a folder is one of maps, and a map that of a picture.

`train/masks/1.png`, `masks/train/1.png`, `train_masks/1.png` and `train/masks/1_mask.png` all belong to `train/1.jpg` or
`images/train/1.jpg`: what counts are the folders without the words for pictures and maps, and the name without its ending.
"""

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

from . import _formats
from ._names import alike, composed
from ._splits import FILLERS, HELD, TRAIN, split_word
from ._tree import File

ORDER = (
    "manual manuals groundtruth groundtruths gt gts masks mask segmentations segmentation segmaps segmap segm seg parsings parsing labelmaps labelmap maps "
    "map labels label annotations annotation annots annot anno trimaps trimap panoptic stuffthingmaps alpha mattes matte semantic semantics instance "
    "instances densepose lesions lesion rois roi"
)
SURE = re.compile(
    r"ground.?truth|manual.?mask|segmentation|segmap|labelmap|trimap|panoptic|stuffthing"
)  # in the words of a folder that is no class
WORDS = {word: place for place, word in enumerate(ORDER.split())}  # of several kinds beside each other the first is taken
CITY = r"gt(?:fine|coarse)"  # Cityscapes: gtFine/a_gtFine_labelIds.png is the map of leftImg8bit/a_leftImg8bit.png
PHOTOS = "leftimg8bit"
ENDING = re.compile(rf"[\s_.-]+(({'|'.join(WORDS)})\d?|l|{CITY}[\s_.-]\w+)$", re.IGNORECASE)  # that its picture has not: `1_mask.png`
OF_PHOTO = re.compile(
    rf"[\s_.-]+({'|'.join([*TRAIN, *HELD])}|{PHOTOS}|sat|images?|img|rgb|photo|original|orig)$", re.IGNORECASE
)  # that its map has not
NUMBERS = re.compile(rf"[\s_.-]{CITY}_label(?:train)?ids$", re.IGNORECASE)  # of several maps of one picture the one of classes
WITH = "class classes object objects instance instances raw aug semantic pixel level 1st 2nd first second 1 2"
BESIDE = frozenset(WITH.split())  # words beside `Segmentation`
NOTHING = "jpeg jpg png tif tiff bmp original originals input inputs rgb source photo"
PHOTO = frozenset(NOTHING.split())  # that say nothing about a folder of pictures
SINGLE = frozenset(["object", "objects", "instance", "instances"])  # maps that number each thing, not its class
Key = tuple[tuple[str, ...], str]


def top_of_maps(folder: str, above: int) -> str:
    """The folder of maps that this folder is or lies in, '' where it lies in none; the first `above` parts say nothing."""
    parts = folder.split("/")
    return next(("/".join(parts[: place + 1]) for place in range(above, len(parts)) if kind(parts[place]) is not None), "")


def kind(name: str) -> int | None:
    """The rank of a folder by the word in its name that speaks of maps, as they stand in ORDER; None where there is none."""
    found = words(name)
    place = next(
        (WORDS[bare] for word in found if (bare := word.rstrip("12")) in WORDS),
        WORDS["segmentation"] if re.match(CITY, name.casefold()) else None,
    )
    return None if place is None else 2 * place + (not SINGLE.isdisjoint(found))


def words(name: str) -> list[str]:
    """`train`, `masks` of `trainMasks`, `Train-Masks` or `trainmasks`; `jpeg`, `images` of `JPEGImages`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", composed(name)).casefold()
    spaced = re.sub(r"(?<![a-z])ground[\W_]+truth", "groundtruth", spaced)
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
    nothing = {*FILLERS, *WORDS, *PHOTO, *(BESIDE if kind(part) is not None else ())}
    left = [word for word in words(part) if word not in nothing and word.rstrip("12") not in WORDS]
    return "" if all(word.isdecimal() for word in left) and left != words(part) else " ".join(left)  # image_2


def short_key(key: Key) -> Key:
    """The key of a picture without what its map's name may lack: `21` of `21_training`, `104` of `104_sat`."""
    return key[0], OF_PHOTO.sub("", key[1])


def keys_of(file: File, *, without: str = "") -> Iterator[Key]:
    """The keys that a map's picture may have, the surest first; `without` is a folder that says nothing."""
    folder = re.sub(rf"(^|/){re.escape(without)}(?=/|$)", "", file.folder, count=1).strip("/") if without else file.folder
    folders, stem = key_of(folder, file)
    yield folders, stem
    for short in _without_ending(file.folder, stem):
        yield folders, short


def _without_ending(folder: str, stem: str) -> Iterator[str]:
    """`1` of `1_mask`, and of `1.ah` in a folder `labels-ah`; then also what is left without the word of a split."""
    own = re.sub(rf"[\s_.-]+({'|'.join(map(re.escape, words(folder.rpartition('/')[2]))) or '$.'})$", "", stem)
    for short in dict.fromkeys(each for each in (ENDING.sub("", stem), own) if each != stem):
        yield short
        if (shorter := OF_PHOTO.sub("", short)) != short:
            yield shorter


def _stem(file: File) -> str:
    return os.path.splitext(file.path)[0]


def match_names(
    maps: Iterable[File], owners: dict[Key, list[str]], *, without: str = "", stems: dict[str, list[str]] | None = None
) -> dict[str, File]:
    """The map of each picture that has one. Of several .png comes first; where a map may be that of pictures in several folders it is nobody's."""
    out: dict[str, File] = {}
    for file in sorted(maps, key=_rank):
        found = next((paths for key in keys_of(file, without=without) if (paths := owners.get(key))), None)
        if found is None and stems is not None:
            found = next((paths for _, stem in keys_of(file, without=without) if (paths := stems.get(stem))), None)
        if found and len({path.rpartition("/")[0] for path in found}) == 1:
            for path in found:
                out.setdefault(path, file)
    return out


def match_stems(top: str, maps: Iterable[File], stems: dict[str, list[str]]) -> dict[str, File]:
    """The same of maps in folders that their pictures' do not resemble.

    Of names that but one picture has those count that end as maps' do, or that lie in a folder called as the picture's is: `segmentations/001.Gull`;
    all in one that is surely no class.
    """
    out: dict[str, File] = {}
    sure = bool(SURE.search(" ".join(words(top.rpartition("/")[2]))))
    for file in sorted(maps, key=_rank):
        own = key_of(file.folder, file)[1]
        for folders, stem in itertools.chain(keys_of(file), ((bare(file.folder), start) for start in (_starts(own) if sure else ()))):
            paths = stems.get(stem, ())
            above = paths[0].rpartition("/")[0] if len(paths) == 1 else ""
            if len(paths) == 1 and _agree(file.folder, above) and (sure or stem != own or _within(folders, bare(above))):
                out.setdefault(paths[0], file)
                break
    return out


def by_key(pictures: Iterable[File]) -> tuple[dict[Key, list[str]], dict[str, list[str]]]:
    """(pictures by key, also without what a map's name may lack where no other picture is called so; the same by the name alone)."""
    owners: dict[Key, list[str]] = defaultdict(list)
    stems: dict[str, list[str]] = defaultdict(list)
    shorter, short_stems = defaultdict[Key, list[str]](list), defaultdict[str, list[str]](list)
    for file in pictures:
        key = key_of(file.folder, file)
        owners[key].append(file.path)
        stems[key[1]].append(file.path)
        shorter[short_key(key)].append(file.path)
        short_stems[short_key(key)[1]].append(file.path)
    alone = {key: paths for key, paths in shorter.items() if len(paths) == 1 and key not in owners}
    return {**owners, **alone}, {**short_stems, **stems}


def _starts(stem: str) -> Iterator[str]:
    """`IDRiD_01` of `IDRiD_01_MA`, then `IDRiD`."""
    return (stem[: each.start()] for each in reversed([*re.finditer(r"[\s_.-]+", stem)]))


def _rank(file: File) -> tuple[bool, bool, str]:
    return _formats.ending(file.path) != ".png", not NUMBERS.search(_stem(file)), file.path


def _within(folders: Iterable[str], others: Iterable[str]) -> bool:
    """Whether all words of some folders, of which there are any, are in those of others."""
    inner, outer = ({word for folder in each for word in folder.split()} for each in (folders, others))
    return bool(inner) and inner <= outer


def _agree(folder: str, other: str) -> bool:
    """Whether two folders are of no different splits."""
    one, two = ({kind for part in each.split("/") if (kind := split_word(part)[0])} for each in (folder, other))
    return not one or not two or one == two
