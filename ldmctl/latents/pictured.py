"""Maps and small pictures of the items of a cache, made once from the data that its latents were made from, and kept beside them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl.console import Console
from ldmctl.errors import ConfigError, DataError
from ldmctl.latents.behind import Behind, behind
from ldmctl.latents.conditions import Known, kept
from ldmctl.latents.inventory import FOLDER
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.prepared import Prepared, Row, key_of
from ldmctl.latents.reader import Latents
from ldmctl.pictures.maps import map_of, of_one_kind
from ldmctl.pictures.stored_maps import UNLABELLED, doubt, hold_labels
from ldmctl.training.engine import Engine, on_all

SHARD = 1 << 26  # bytes of one
LOOKED_AT = 64  # maps by which it is known whether they hold labels


@dataclass(frozen=True)
class Maps:
    """The maps behind a cache, before any is made."""

    sets: dict[str, Behind]
    names: list[str]  # of their classes, where the data set says them
    labels: bool  # whether they hold classes, and not shades
    folder: Path  # in the cache
    keys: dict[str, list[bytes]]  # of each item of each split
    wanted: dict[bytes, tuple[str, int]]  # those that there are, or may be: split and place among its pictures
    doubt: str = ""  # a sentence on what they may hold otherwise


class Images:
    """A map, or a small picture, of each item of a split."""

    def __init__(self, rows: Prepared, keys: Sequence[bytes]):
        self.rows, self.keys = rows, keys
        first = next((key for key in keys if key in rows), None)
        self.nothing = None if first is None else torch.zeros_like(rows.row(first)["image"][0])

    @property
    def share(self) -> float:
        """Of the items, how many have one."""
        return sum(key in self.rows for key in self.keys) / max(len(self.keys), 1)

    def digest(self) -> str:
        """SHA-256 of all of them in the order of the items, wherever their files lie."""
        found = hashlib.sha256()
        for key in self.keys:
            found.update(self.rows.row(key)["image"].numpy().tobytes() if key in self.rows else b"none")
        return found.hexdigest()

    def known(self, items: Tensor, mirrored: Tensor | None = None, chosen: Tensor | None = None) -> Known:
        """uint8 [B,K,H,W], and which items have one; see `Source`."""
        keys = [self.keys[item] for item in items.tolist()]
        if self.nothing is None:
            return Known(None)
        image = torch.stack([self.rows.row(key)["image"][0] if key in self.rows else self.nothing for key in keys])
        if mirrored is not None:
            image = torch.where(mirrored.view(-1, 1, 1, 1), image.flip(-1), image)
        return Known(image, torch.tensor([key in self.rows for key in keys]))


def map_keys(split: Behind) -> list[bytes]:
    """What the map of each item is known by: the name and version of map and picture."""
    dataset = split.pictures.dataset
    stamp = getattr(dataset, "map_stamp", lambda _: "")
    return [key_of(f"{split.pictures.stamp(row)} {stamp(row)}") for row in split.rows]


def prepare_maps(
    cache: Path, manifest: Manifest, splits: dict[str, Latents], engine: Engine, console: Console
) -> tuple[dict[str, Images], dict[str, Any]]:
    """(the maps of the items of each split, {"classes": names or [], "channels": K}), made where the cache has not kept them.

    A ConfigError where there are none, a DataError for one that cannot be used.
    """
    maps = find_maps(cache, manifest, splits)
    names, labels = maps.names, maps.labels
    if engine.leads and maps.doubt:
        console.warn(maps.doubt)

    def made(place: tuple[str, int]) -> Tensor | None:
        return map_of(maps.sets[place[0]].pictures, place[1], labels=labels)

    like = next((len(each) for place in maps.wanted.values() if (each := made(place)) is not None), 0)

    def one(place: tuple[str, int]) -> Tensor | None:
        return of_one_kind(made(place), like, maps.sets[place[0]].pictures.stamp(place[1]))

    side = int(manifest.image["size"])
    about = {"slot": "map", "holds": "classes" if labels else "numbers", "classes": names, "image": manifest.image}
    rows = on_images(maps.folder, maps.wanted, one, engine, console, what="maps", size=side * side, about=about)
    found = {split: Images(rows, maps.keys[split]) for split in maps.sets}
    return found, on_all(engine, lambda: described(found, names, labels=labels))


def find_maps(cache: Path, manifest: Manifest, splits: dict[str, Latents]) -> Maps:
    """The maps behind a cache; a ConfigError where there are none."""
    sets = {split: behind(cache, latents) for split, latents in splits.items()}
    dataset: Any = sets["train"].pictures.dataset
    some = first_maps(sets["train"]) if getattr(dataset, "has_maps", True) else []
    if not some:
        raise ConfigError(
            f"conditions.map has nothing to listen to: the pictures of {cache} have no maps. Lay them beside the pictures in a folder `masks`, "
            "under the same names, or take conditions.map=null."
        )
    names = list(getattr(dataset, "map_classes", None) or [])
    labels = bool(names) or hold_labels(some)
    folder = cache / FOLDER / f"map-{named([manifest.image, labels])}"
    keys = {split: map_keys(each) for split, each in sets.items()}
    stamped = hasattr(dataset, "map_stamp")
    wanted = {
        key: (split, row)
        for split, each in sets.items()
        for key, row in zip(keys[split], each.rows, strict=True)
        if not stamped or each.pictures.dataset.map_stamp(row)  # type: ignore[attr-defined]
    }
    return Maps(sets, names, labels, folder, keys, wanted, "" if labels else doubt(some))


def first_maps(split: Behind) -> list[Any]:
    """The first LOOKED_AT maps there are, as they are stored; where none is named beforehand, each picture is asked."""
    dataset: Any = split.pictures.dataset
    rows = (row for row in split.rows if not hasattr(dataset, "map_stamp") or dataset.map_stamp(row))
    return list(islice((each for row in rows if (each := dataset[row].map) is not None), LOOKED_AT))


def described(splits: Mapping[str, Images], names: list[str], *, labels: bool) -> dict[str, Any]:
    """What is said of maps in a model's header; a DataError for classes beyond those that have names."""
    assert splits["train"].nothing is not None
    channels = int(splits["train"].nothing.shape[0])
    if not labels:
        return {"classes": [], "channels": channels}
    highest = 0
    for split in splits.values():
        for key in split.keys:
            if key in split.rows:
                numbers = split.rows.row(key)["image"]
                highest = max(highest, int(torch.where(numbers == UNLABELLED, 0, numbers).max()))
    if names and highest >= len(names):
        raise DataError(
            f"A map has class {highest}, and there are names for {len(names)} classes, counted from 0: {', '.join(names[:20])}."
        )
    return {"classes": names or [str(number) for number in range(highest + 1)], "channels": channels}


def prepare_pictures(
    conditioner: Any, cache: Path, manifest: Manifest, splits: dict[str, Latents], engine: Engine, console: Console
) -> dict[str, Images]:
    """The pictures of the items of each split as a conditioner `shrink`s them, made where the cache has not kept them."""
    sets, keys, wanted = find_pictures(cache, splits)
    kind, smaller = type(conditioner).__name__, getattr(conditioner, "smaller", None)
    folder = folder_of_pictures(conditioner, cache, manifest)
    about = {"slot": "picture", "type": kind.lower(), "smaller": smaller, "image": manifest.image}

    def one(place: tuple[str, int]) -> Tensor:
        small: Tensor = conditioner.shrink(sets[place[0]].pictures.item(place[1])[None])[0]
        return small

    side = int(manifest.image["size"])
    rows = on_images(folder, wanted, one, engine, console, what="pictures", size=side * side, about=about)
    return {split: Images(rows, keys[split]) for split in sets}


def find_pictures(
    cache: Path, splits: dict[str, Latents]
) -> tuple[dict[str, Behind], dict[str, list[bytes]], dict[bytes, tuple[str, int]]]:
    """(the pictures behind each split, the keys of its items, {key: (split, place among its pictures)})."""
    sets = {split: behind(cache, latents) for split, latents in splits.items()}
    keys = {split: [key_of(each.pictures.stamp(row)) for row in each.rows] for split, each in sets.items()}
    return sets, keys, {key: (split, row) for split, each in sets.items() for key, row in zip(keys[split], each.rows, strict=True)}


def folder_of_pictures(conditioner: Any, cache: Path, manifest: Manifest) -> Path:
    """Where the pictures that a conditioner shrinks are kept."""
    return cache / FOLDER / f"picture-{named([type(conditioner).__name__, getattr(conditioner, 'smaller', None), manifest.image])}"


def on_images(
    folder: Path,
    wanted: dict[bytes, tuple[str, int]],
    one: Any,
    engine: Engine,
    console: Console,
    *,
    what: str,
    size: int,
    about: Mapping[str, Any],
) -> Prepared:
    """`kept` of images uint8 [K,H,W], some decoded at a time; items without one have no row."""

    def make(places: Sequence[tuple[str, int]]) -> list[tuple[Row, bool] | None]:
        with ThreadPoolExecutor(4) as pool:
            images = list(pool.map(one, places))
        return [None if image is None else ({"image": image[None]}, False) for image in images]

    return kept(folder, wanted, make, engine, console, what=what, together=max(1, SHARD // max(size * 3, 1)), about=about)


def named(what: Any) -> str:
    """A short hash of what decides how images are made."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
