"""What lies in the folders of prepared rows: how many, how long, what maps show."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ldmctl.errors import MismatchError
from ldmctl.latents import prepared
from ldmctl.latents.prepared import Prepared
from ldmctl.pictures.stored_maps import UNLABELLED

COUNTED = 1024  # maps whose pixels are counted


def rows_in(folder: Path, said: Iterable[str]) -> dict[str, Any]:
    """What lies in a folder of prepared rows; `said` are the captions of now."""
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
    return found | (lengths(rows, {prepared.key_of(text) for text in said}) if slot == "text" else images(rows, about))


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
