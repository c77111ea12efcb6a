"""What a cache holds beside its latents: captions, and what conditioners have made of captions, maps and pictures."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ldmctl.errors import MismatchError
from ldmctl.latents import prepared
from ldmctl.latents.conditions import FOLDER
from ldmctl.latents.items import read_lines
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.prepared import Prepared
from ldmctl.pictures.maps import UNLABELLED

COUNTED = 1024  # maps whose pixels are counted


def folders(cache: Path) -> list[Path]:
    """Where prepared rows of a cache lie, a folder for each conditioner that made some."""
    return sorted(place for place in (cache / FOLDER).glob("*-*") if place.is_dir())


def inventory(cache: Path, manifest: Manifest) -> dict[str, Any]:
    """{"captions": how many there are, "conditions": what is kept of them, of maps and of pictures}."""
    said = texts(cache, manifest)
    keys = {prepared.key_of(text) for text in said}
    return {"captions": captions(said, manifest), "conditions": [rows_in(place, keys) for place in folders(cache)]}


def texts(cache: Path, manifest: Manifest) -> Counter[str]:
    """Every caption and how often it is said, "" for items without one."""
    found: Counter[str] = Counter()
    if manifest.captions and not any(manifest.captions.values()):
        return found
    for shard in (shard for row in manifest.splits.values() for shard in row):
        for item in read_lines(cache / shard.items_file):
            some = [text for text in item.texts or (item.text,) if text.strip()]
            found.update(some or [""])
    return found


def captions(said: Counter[str], manifest: Manifest) -> dict[str, int]:
    """Numbers of captions: of items with one and without, of captions, of different ones, of those that were said before."""
    items = sum(map(manifest.count, manifest.splits))
    without = said[""] if said else items
    many = said.total() - said[""]
    different = len(said) - ("" in said)
    return {"items_with": items - without, "items_without": without, "captions": many, "different": different, "repeated": many - different}


def rows_in(folder: Path, keys: set[bytes]) -> dict[str, Any]:
    """What lies in a folder of prepared rows; `keys` are those of the captions of now."""
    files = prepared.shards_in(folder)
    about = prepared.noted(folder)
    slot = about.get("slot") or folder.name.split("-")[0]
    found = {"folder": folder.name, "slot": slot, "about": about, "bytes": sum(file.stat().st_size for file in files)}
    try:
        rows = prepared.opened(folder, checked=False)
    except MismatchError as error:
        return found | {"damaged": str(error)}
    found |= {"rows": len(rows)}
    if not len(rows):
        return found
    return found | (lengths(rows, keys) if slot == "text" else images(rows, about))


def lengths(rows: Prepared, keys: set[bytes]) -> dict[str, Any]:
    """How many tokens captions have, how many are cut, and how many of the rows are of captions of now."""
    counts = rows.counts()
    half, most = np.percentile(counts, [50, 95], method="inverted_cdf").tolist()
    cut = sum(int(shard.cut.sum()) for shard in rows.shards)
    tokens = {"p50": half, "p95": most, "max": int(counts.max())}
    return {"tokens": tokens, "cut": cut, "in_use": sum(key in rows for key in keys)}


def images(rows: Prepared, about: dict[str, Any]) -> dict[str, Any]:
    """Their shape; of maps of classes the share of pixels that each class has, in some of them."""
    keys = list(rows.places)
    first = rows.row(keys[0])["image"][0]
    found: dict[str, Any] = {"shape": list(first.shape)}
    if about.get("holds") != "classes":
        return found
    some = [keys[place] for place in np.linspace(0, len(keys) - 1, min(COUNTED, len(keys))).astype(int)]
    counts = sum((torch.bincount(rows.row(key)["image"].flatten().int(), minlength=256) for key in some), start=torch.zeros(256)).double()
    names = dict(enumerate(about.get("classes") or []))
    shares = (counts / counts.sum()).tolist()
    classes = [number for number in range(256) if number != UNLABELLED and (number in names or shares[number])]
    return found | {
        "counted": len(some),
        "classes": {str(names.get(number, number)): shares[number] for number in classes},
        "unlabelled": shares[UNLABELLED],
    }
