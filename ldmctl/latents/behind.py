"""The pictures that a cache was made from, found again by their stamps or by what their files hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldmctl.config.documents import read_config
from ldmctl.config.presets import pictures_of
from ldmctl.config.resolve import resolve
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.errors import DataError
from ldmctl.latents.reader import Latents
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.choosing import named
from ldmctl.pictures.loading import open_pictures


@dataclass(frozen=True)
class Behind:
    """The pictures of a split that a cache was made from, in the order of its items."""

    pictures: Pictures
    rows: list[int]  # of each item, its place among the pictures


def behind(cache: Path, latents: Latents) -> Behind:
    """The pictures that a split of a cache was made from; a DataError where they are not there any more."""
    layer = pictures_of(cache)
    config = resolve(EncodeDataset, [layer], source=f"{cache / 'config.yaml'}")

    def moved(told: str) -> str:
        again = f"ldmctl encode-dataset --run {read_config(cache).get('run', config.run)} {told} --out {cache}"
        return f"If the pictures were moved, tell the cache where they are: {again}. The latents of all that only moved are kept."

    pictures = open_pictures(config, latents.split, moved=moved)
    items = list(latents.items())
    rows = places_of(pictures, items)
    if lost := [item["stamp"] for item, row in zip(items, rows, strict=True) if row is None]:
        raise DataError(
            f"{len(lost):,} of {len(items):,} pictures of {cache} are not where they were, such as {lost[0]}. Bring the cache up to date: "
            "the same ldmctl encode-dataset keeps the latents of all that only moved."
        )
    return Behind(pictures, [row for row in rows if row is not None])


def places_of(pictures: Pictures, items: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Of each item of a cache, its place among the pictures, None where it is not there: by its stamp, else by name and content of its file."""
    stamps = {pictures.stamp(index): index for index in reversed(range(len(pictures)))}
    found = [stamps.get(item["stamp"]) for item in items]
    lost = {named(item["stamp"]) for item, row in zip(items, found, strict=True) if row is None and item.get("content")}
    if not lost or not pictures.hashed:
        return found
    contents = {pictures.content(index): index for stamp, index in stamps.items() if named(stamp) in lost}  # copied, with a new time
    return [contents.get(str(item.get("content"))) if row is None else row for item, row in zip(items, found, strict=True)]
