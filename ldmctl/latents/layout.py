"""What a cache of latents will hold, laid out from the pictures and from what is there, before anything is encoded."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.errors import DataError, MismatchError
from ldmctl.latents import integrity, items, writer
from ldmctl.latents import manifest as manifests
from ldmctl.latents.codec import Codec
from ldmctl.latents.items import Item, read_lines
from ldmctl.latents.manifest import Manifest, Shard
from ldmctl.latents.plan import Target, is_finished, plan_split
from ldmctl.latents.store import Store, plan_store, store_of
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.choosing import named
from ldmctl.pictures.loading import on_device, shown_items
from ldmctl.storage.run import Run
from ldmctl.training.engine import Engine


@dataclass(frozen=True)
class Layout:
    """What the cache will hold; the same on every rank."""

    preparation: dict[str, Any]
    before: Manifest | None  # the finished cache that is brought up to date
    classes: list[str]
    store: Store
    shards: dict[str, list[Shard | Target]]
    finished: list[Target]  # written by a command that was interrupted
    listing: str  # hash of all stamps
    damaged: dict[str, str]  # what is wrong with each shard that is not as it was written
    restored: bool = False  # whether latents.json was damaged, and every shard is one that is to be there

    @property
    def todo(self) -> list[Target]:
        """Shards yet to be written."""
        targets = [shard for row in self.shards.values() for shard in row if isinstance(shard, Target)]
        return [target for target in targets if target not in self.finished]

    @property
    def complete(self) -> bool:
        """Whether all of it is there already."""
        there = self.before
        return (
            there is not None
            and self.classes == there.classes
            and self.shards == {split: there.splits.get(split, []) for split in self.shards}
        )


def preparation_of(config: EncodeDataset, autoencoder: dict[str, Any]) -> dict[str, Any]:
    """All that decides the latents of a picture, by the keys that set it."""
    tile = config.machine.tile
    image = config.image.preparation()
    if image["profile"] == "keep":  # as before there was a choice
        del image["profile"]
    return {
        "autoencoder": autoencoder,
        "image": image,
        "flip": config.flip,
        **({"store": config.store} if config.store != "moments" else {}),  # as before there was a choice: it names what is stored
        "dtype": config.dtype,
        "machine": {"tile": tile if tile is not None and config.image.size > tile else None},  # smaller pictures come out the same
    }


def finished_cache(folder: Path, preparation: dict[str, Any]) -> Manifest | None:
    """The manifest of a cache that may be brought up to date, None where there is none; a MismatchError names what it was made with."""
    if not (folder / "latents.json").exists():
        return None
    found = manifests.read(folder)
    ways = "Encode again with --overwrite, or into another --out."
    if not found.preparation:
        raise MismatchError(f"{folder} was written by an ldmctl that could not add to a cache. {ways}")
    if changed := manifests.differences({"store": "moments", **found.preparation}, {"store": "moments", **preparation}):
        other = [line for line in changed if line.startswith("autoencoder.")]
        what = "another autoencoder (or another state of it)" if other else "another preparation"
        raise MismatchError("\n  ".join([f"{folder} holds latents of {what}:", *changed]) + f"\n{ways}")
    return found


def lay_out(config: EncodeDataset, splits: dict[str, Pictures], codec: Codec, preparation: dict[str, Any], run: Run) -> Layout:
    """Plan the cache from the pictures and what is in its folder, and delete what belongs to neither."""
    fault = None
    try:
        before = finished_cache(run.folder, preparation)
    except manifests.Damaged as error:  # as where a command was interrupted before it wrote one, if nothing is lost by that
        before, fault = None, error
    store = store_of(before) if before is not None else plan_store(config, first_pictures(splits["train"], codec.engine), codec)
    stamps = {split: stamps_of(pictures) for split, pictures in splits.items()}
    notes = {split: noting(pictures) for split, pictures in splits.items()}
    there = {split: before.splits.get(split, []) if before else [] for split in splits}
    damaged = integrity.damaged(run.folder, [shard for row in there.values() for shard in row])
    read = lambda shard: read_lines(run.folder / shard.items_file) if shard.file in damaged else items.read_items(run.folder, shard)
    stored = {split: [(shard, read(shard)) for shard in row] for split, row in there.items()}
    contents = {split: cache(pictures.content) for split, pictures in splits.items()}
    identity = json.dumps([preparation, store.dtype], sort_keys=True)

    def plan(left_out: dict[str, list[str]]) -> Layout:
        planned = {
            split: plan_split(
                split,
                stamps[split],
                notes[split],
                stored[split],
                size=config.shard,
                identity=identity,
                leave=left_out.get(split, []),
                content=contents[split],
                damaged=damaged,
            )
            for split in splits
        }
        return Layout(preparation, before, splits["train"].classes, store, planned, [], listing_of(stamps), damaged)

    most = config.image.max_pixels
    again = before is not None and before.image.get("max_pixels", most) != most  # what is readable is another question then
    layout = plan(before.skipped if before and not again else {})
    if not layout.complete:
        layout = plan({})  # pictures that could not be read get another chance
    finished = [target for target in layout.todo if is_finished(run.folder, target, stamps[target.split], notes[target.split])]
    refuse_other_pictures(run.folder, stored, layout, stamps)
    if fault is not None and writer.shards_of(run.folder, list(splits)) - {target.file for target in finished}:
        raise MismatchError(
            f"{run.folder / 'latents.json'} is damaged, and the shards beside it are not those that this command would make: they were made with "
            "other keys, or brought up to date. So it cannot be written anew from them; --overwrite encodes all of them again."
        ) from fault
    kept = [shard.file for row in (before.splits.values() if before else []) for shard in row]
    writer.sweep(run.folder, [*kept, *(target.file for target in finished)], splits=list(splits))
    return replace(layout, finished=finished, restored=fault is not None)


def refuse_other_pictures(
    folder: Path, stored: Mapping[str, Sequence[tuple[Shard, list[Item]]]], layout: Layout, stamps: Mapping[str, Sequence[str]]
) -> None:
    """A MismatchError where a cache has none of the pictures that are to be encoded: it is another data set's, whatever that was called."""
    before = [(shard, item) for row in stored.values() for shard, items in row for item in items if shard.file not in layout.damaged]
    planned = [each for row in layout.shards.values() for each in row]
    if not before or any(isinstance(each, Shard) or each.rows for each in planned):
        return
    asked = {named(stamp) for row in stamps.values() for stamp in row}
    if not any(named(item.stamp) in asked for _, item in before):
        raise MismatchError(
            f"{folder} holds latents of {len(before):,} other pictures: none of them is among the {len(asked):,} that are to be encoded. "
            "Name those with --data, or encode these into another --out, or with --overwrite in place of them."
        )


def first_pictures(pictures: Pictures, engine: Engine) -> Tensor:
    """Up to 32 pictures [B,C,H,W] on the device; none at all is a DataError."""
    if not len(pictures):
        raise DataError("There are no pictures to encode.")
    return on_device(shown_items(pictures, 32), engine)


def stamps_of(pictures: Pictures) -> list[str]:
    """The stamp of every picture, in order."""
    return [pictures.stamp(index) for index in range(len(pictures))]


def listing_of(stamps: dict[str, list[str]]) -> str:
    """A hash of which pictures there are."""
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()


def noting(pictures: Pictures) -> Callable[[int], Item]:
    """A function from a picture's index to what is known of it now, without decoding it where its format allows."""

    @cache
    def note(index: int) -> Item:
        try:
            label, text = pictures.note(index)
            return Item(pictures.stamp(index), text, label, pictures.captions(index))
        except DataError:
            return Item(pictures.stamp(index), "", -1)

    return note
