"""What a denoiser will be given of a cache, found without keeping anything: for a dry run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ldmctl.diffusion.network import Network
from ldmctl.latents import prepared
from ldmctl.latents.conditions import Captions, Several, captions_of, folder_of_captions, in_memory
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.pictured import LOOKED_AT, Images, Maps, described, find_pictures, folder_of_pictures
from ldmctl.latents.prepared import Prepared
from ldmctl.latents.reader import Latents
from ldmctl.pictures.maps import UNLABELLED, map_of
from ldmctl.training.costs import human

READ = 64  # captions that an encoder reads, where none is kept
LEARNED = 1024  # the same where no frozen encoder reads them


class Foreseen(NamedTuple):
    """What is known of training items, and what is still to be made of it."""

    known: Several  # of some of them, captions alone
    shares: dict[str, float]  # of the items, how many have what a slot hears
    said: dict[str, str]  # lines for a person


def classes_of(maps: Maps) -> dict[str, Any]:
    """{"classes": names or [], "channels": K} of maps, as a model is told; where not all are kept and no one names the classes, of those
    that the first maps show."""
    rows = prepared.opened(maps.folder, checked=False)
    if rows and not any(key not in rows for key in maps.wanted):
        return described({split: Images(rows, keys) for split, keys in maps.keys.items()}, maps.names, labels=maps.labels)
    train = maps.sets["train"]
    places = [row for split, row in maps.wanted.values() if split == "train"]
    some = [image for row in places[:LOOKED_AT] if (image := map_of(train.pictures, row, labels=maps.labels)) is not None]
    if not maps.labels:
        return {"classes": [], "channels": len(some[0])}
    highest = max(int(torch.where(image == UNLABELLED, 0, image).max()) for image in some)
    return {"classes": maps.names or [str(number) for number in range(highest + 1)], "channels": len(some[0])}


def foresee(
    network: Network, cache: Path, manifest: Manifest, splits: dict[str, Latents], maps: Maps | None = None, channels: int = 1
) -> Foreseen:
    """What these conditioners will hear, and how much of it is still to be made and kept; maps have so many `channels`."""
    shares, said, source = {}, {}, None
    if network.text is not None:
        source, shares["text"], said["captions"] = captions_for(network.text, cache, splits)
    if maps is not None:
        keys = maps.keys["train"]
        shares["map"] = sum(key in maps.wanted for key in keys) / max(len(keys), 1)
        size = int(manifest.image["size"]) ** 2 * channels
        said["maps"] = to_make(prepared.opened(maps.folder, checked=False), list(maps.wanted), size, "maps")
    if getattr(network.picture, "wants", None) == "image":
        side, channels = int(manifest.image["size"]), int(manifest.image["channels"])
        small = network.picture.shrink(torch.zeros(1, channels, side, side, dtype=torch.uint8))
        rows = prepared.opened(folder_of_pictures(network.picture, cache, manifest), checked=False)
        said["small pictures"] = to_make(rows, list(find_pictures(cache, splits)[2]), small.numel(), "pictures")
    return Foreseen(Several({} if source is None else {"text": source}), shares, said)


def captions_for(conditioner: Any, cache: Path, splits: dict[str, Latents]) -> tuple[Captions, float, str]:
    """(some captions as they are prepared, the share of training items that have one, a line on their tokens and on what is still to be made)."""
    found = {split: captions_of(latents) for split, latents in splits.items()}
    every = sorted({text for row in found.values() for each in row for text in each})
    keeps = getattr(conditioner, "kept", True)
    there = prepared.opened(folder_of_captions(conditioner, cache), checked=False) if keeps else Prepared([])
    kept = [text for text in every if prepared.key_of(text) in there]
    some = kept or [every[place] for place in np.linspace(0, len(every) - 1, min(READ if keeps else LEARNED, len(every))).astype(int)]
    rows = there if kept else in_memory(conditioner, some)
    if hasattr(conditioner, "release"):
        conditioner.release()
    source = Captions(rows, [(text,) for text in some])
    counts = rows.counts()[source.flat]
    half, most = np.percentile(counts, [50, 95], method="inverted_cdf").tolist()
    line = f"{len(every):,} different, tokens p50 {half}, p95 {most}, max {counts.max()}" + f", of {len(some):,} of them" * (
        len(some) < len(every)
    )
    if keeps:
        each = sum(value.nbytes for text in some[:READ] for value in rows.row(prepared.key_of(text)).values()) / len(some[:READ])
        line += f"; {to_make(there, [prepared.key_of(text) for text in every], each, 'captions')}"
    train = found["train"]
    return source, sum(map(bool, train)) / max(len(train), 1), line


def to_make(rows: Prepared, keys: Sequence[bytes], size: float, what: str) -> str:
    """`4,096 maps to be made, about 16.8 MB on disk`, of `size` bytes each."""
    missing = sum(key not in rows for key in keys)
    return f"{missing:,} {what} to be made, about {human(missing * size)} on disk" if missing else f"all {len(keys):,} {what} are kept"
