"""Between the stages: every picture through the encoder once, into a cache of latents and their statistics.

What the cache shall hold is laid out first, from the pictures and from what is
there: `shards` says how. So an interrupted command goes on, and a finished cache
takes up pictures that were added, changed or removed, by the same five steps.
Ranks share the shards to be written; the first one plans, and writes latents.json.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ldmctl import engine as engines
from ldmctl import manifest as manifests
from ldmctl import shards, weights
from ldmctl.codec import Codec, autoencoder_fingerprint, load_autoencoder
from ldmctl.engine import Engine, generator
from ldmctl.errors import DataError, MismatchError, Stopped
from ldmctl.feed import on_device, open_pictures, shown_items, workers
from ldmctl.manifest import DRIFT, FORMAT, Manifest, Shard
from ldmctl.pictures import Batch, Pictures, batches
from ldmctl.run import Run, describe_plugins, model_file, open_run
from ldmctl.schemas import EncodeDataset
from ldmctl.shards import Background, Item, Rows, Tally, Target
from ldmctl.signals import Signals
from ldmctl.store import Store, codes_in_use, plan_store, refuse_without_codes, store_of
from ldmctl.voice import Voice, duration

SPLITS = ("train", "val")
T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """What the cache shall hold; the same on every rank."""

    preparation: dict[str, Any]
    before: Manifest | None  # the finished cache that is brought up to date
    store: Store
    shards: dict[str, list[Shard | Target]]
    finished: list[Target]  # written by a command that was interrupted
    listing: str  # hash of all stamps

    @property
    def todo(self) -> list[Target]:
        """Shards yet to be written."""
        targets = [shard for row in self.shards.values() for shard in row if isinstance(shard, Target)]
        return [target for target in targets if target not in self.finished]

    @property
    def complete(self) -> bool:
        """Whether all of it is there already."""
        return self.before is not None and self.shards == {split: self.before.splits.get(split, []) for split in self.shards}


class Encoded(NamedTuple):
    """One batch of a target; the last one completes it."""

    target: Target
    last: bool
    rows: Rows
    items: list[Item]
    asked: int  # pictures, the unreadable ones among them
    arrived: Any  # an event after which rows may be read, or None


def encode_dataset(config: EncodeDataset, out: str | Path, *, voice: Voice, overwrite: bool = False) -> dict[str, Any]:
    """Fill the cache `out` with the latents of a data set, or bring it up to date; the same call goes on where it stopped."""
    # Build the parts.
    engine = engines.start(config.machine)
    source = model_file(config.run, verb="fit-ae")
    autoencoder, header = load_autoencoder(source, engine)
    splits = {split: open_pictures(config, split) for split in SPLITS}
    if config.image.channels != header["context"]["image_channels"]:
        raise MismatchError(
            f"{source} encodes pictures of {header['context']['image_channels']} channels, image.channels={config.image.channels} was asked for."
        )
    refuse_without_codes(config, autoencoder)
    codec = Codec(autoencoder, engine, tile=config.machine.tile)
    preparation = preparation_of(config, {"type": header["type"], "fingerprint": autoencoder_fingerprint(source)})

    # Restore or start.
    described = describe_plugins(("dataset", config.dataset))
    run = open_run(out, config, parent=config.run, plugins=described, overwrite=overwrite, writes=engine.leads)
    with run, Signals(voice.say) as signals:
        layout = on_all(engine, lambda: lay_out(config, splits, codec, preparation, run))
        refuse_other_listing(layout, splits, engine)
        if layout.complete:
            return keep_finished(run, layout, voice)

        # Encode this rank's shards.
        written = encode(config, layout, splits, codec, run, signals, voice)

        # Save and say where.
        everything = from_all(engine, (written, {split: pictures.bad for split, pictures in splits.items()}))
        manifest = on_all(engine, lambda: save(config, layout, splits, everything, source, autoencoder.rescale, run))
        return say_saved(run, layout, manifest, voice)


# -- what decides latents ------------------------------------------------------


def preparation_of(config: EncodeDataset, autoencoder: dict[str, Any]) -> dict[str, Any]:
    """All that decides the latents of a picture, by the keys that set it."""
    tile = config.machine.tile
    return {
        "autoencoder": autoencoder,
        "image": {key: value for key, value in config.image.model_dump(mode="json").items() if key not in ("flip", "crop")},
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
    before = finished_cache(run.folder, preparation)
    store = store_of(before) if before is not None else plan_store(config, first_pictures(splits["train"], codec.engine), codec)
    stamps = {split: stamps_of(pictures) for split, pictures in splits.items()}
    notes = {split: noting(pictures) for split, pictures in splits.items()}
    stored = {
        split: [(shard, shards.read_items(run.folder, shard)) for shard in (before.splits.get(split, []) if before else [])]
        for split in splits
    }
    identity = json.dumps([preparation, store.dtype], sort_keys=True)

    def plan(left_out: dict[str, list[str]]) -> Layout:
        planned = {
            split: shards.plan_split(
                split, stamps[split], notes[split], stored[split], size=config.shard, identity=identity, leave=left_out.get(split, [])
            )
            for split in splits
        }
        return Layout(preparation, before, store, planned, [], listing_of(stamps))

    layout = plan(before.skipped if before else {})
    if not layout.complete:
        layout = plan({})  # pictures that could not be read get another chance
    finished = [target for target in layout.todo if shards.is_finished(run.folder, target, stamps[target.split], notes[target.split])]
    there = [shard.file for row in (before.splits.values() if before else []) for shard in row]
    shards.sweep(run.folder, [*there, *(target.file for target in finished)], splits=list(splits))
    return replace(layout, finished=finished)


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
        except DataError:
            return Item(pictures.stamp(index), "", -1)
        return Item(pictures.stamp(index), text, label)

    return note


# -- encoding --------------------------------------------------------------------


def encode(
    config: EncodeDataset, layout: Layout, splits: dict[str, Pictures], codec: Codec, run: Run, signals: Signals, voice: Voice
) -> list[Shard | None]:
    """Write this rank's shards and describe them, and those that an interrupted command left finished."""
    engine = codec.engine
    mine = layout.todo[engine.rank :: engine.world]
    turns = max(sum(len(target.chunks(config.batch)) for target in layout.todo[rank :: engine.world]) for rank in range(engine.world))
    parts: list[tuple[Rows, list[Item]]] = []
    noted = dict.fromkeys(splits, 0)  # unreadable pictures
    done, began = 0, time.monotonic()
    if layout.finished:
        voice.say(f"{len(layout.finished)} of {len(layout.finished) + len(layout.todo)} shards are there from before.")
    with Background() as writer, voice.bar("encoding", sum(len(target.new) for target in mine)) as bar:
        for target in layout.finished[engine.rank :: engine.world]:
            writer.put(shards.describe, run.folder / target.file, drawing(target, codec))
        for target in mine:
            if not target.new:  # rows are left out or described anew
                writer.put(shards.write, run.folder, target, [], drawing(target, codec))
        stream = one_behind(encoded(config, layout, mine, splits, codec))
        for turn in range(turns):
            if (batch := next(stream, None)) is not None:
                parts.append((layout.store.checked(landed(batch), batch.items), batch.items))
                met = splits[batch.target.split].bad
                run.note_bad(met[noted[batch.target.split] :])
                noted[batch.target.split] = len(met)
                done += batch.asked
                if batch.last:
                    writer.put(shards.write, run.folder, batch.target, parts, drawing(batch.target, codec))
                    run.update(step=run.record.get("step", 0) + 1)  # there is something to lose now
                    parts = []
                show(bar, done, time.monotonic() - began)
            if agreed_to_stop(signals, engine, turn, last=turn == turns - 1):
                writer.results()
                raise Stopped(stopped(run, done, layout))
        found = writer.results()
    if done:
        spent = time.monotonic() - began
        voice.say(f"{done:,} pictures encoded in {duration(spent)}, {done / max(spent, 1e-9):,.0f} pictures/s.")
    return found


def encoded(config: EncodeDataset, layout: Layout, targets: list[Target], splits: dict[str, Pictures], codec: Codec) -> Iterator[Encoded]:
    """The batches of these targets; a batch never has pictures of two, so it is the same whichever ones there are."""
    for split, pictures in splits.items():
        chunks = [
            (target, chunk[-1] == target.new[-1], chunk)
            for target in targets
            if target.split == split
            for chunk in target.chunks(config.batch)
        ]
        order = ([(index, index) for index in chunk] for _, _, chunk in chunks)
        if chunks:
            stream = batches(pictures, order, workers=workers(config.workers, pictures, codec.engine))
            for (target, last, _), batch in zip(chunks, stream, strict=True):
                yield encode_batch(target, last, batch, pictures, codec, layout.store, flip=config.flip)


def encode_batch(target: Target, last: bool, batch: Batch, pictures: Pictures, codec: Codec, store: Store, *, flip: bool) -> Encoded:
    """What is stored of the readable pictures of a batch, on its way to the host."""
    travels = codec.engine.device.type == "cuda"  # while the next batch is begun
    good = [row for row, (asked, used) in enumerate(zip(batch.index, batch.used, strict=True)) if asked == used]
    items = [Item(pictures.stamp(batch.used[row]), batch.text[row], batch.label[row]) for row in good]
    rows: Rows = {}
    if good:
        image = on_device(batch.image if len(good) == len(batch.image) else batch.image[good], codec.engine)
        rows[store.name] = store.of(image, codec).to("cpu", non_blocking=travels)
        if flip:
            rows["flipped"] = store.of(image.flip(-1), codec).to("cpu", non_blocking=travels)
    arrived = None
    if travels:
        arrived = torch.cuda.Event()
        arrived.record()
    return Encoded(target, last, rows, items, len(batch.index), arrived)


def landed(batch: Encoded) -> Rows:
    """The rows of a batch when they have arrived, in memory that may be kept."""
    if batch.arrived is None:
        return batch.rows
    batch.arrived.synchronize()
    return {name: value.clone() for name, value in batch.rows.items()}  # pinned memory is scarce


def one_behind(stream: Iterator[T]) -> Iterator[T]:
    """The same things, each given when the next one has been begun: the device never waits for the host."""
    before: list[T] = []
    for each in stream:
        yield from before
        before = [each]
    yield from before


def drawing(target: Target, codec: Codec) -> shards.Draw | None:
    """How latents are drawn for the statistics: from what is stored, with noise that depends on what the shard holds; None in val."""
    return partial(draw, codec) if target.split == "train" else None


def draw(codec: Codec, stored: Tensor, seed: str) -> Tensor:
    """Moments or codes as stored -> latents [n,c,h,w], not whitened."""
    return codec.draw(stored.to(codec.engine.device), generator(codec.engine.device, "posterior", seed))


def show(bar: Any, done: int, spent: float) -> None:
    """Progress, with pictures/s."""
    if bar.live is not None:
        bar.done = done
        bar.report({}, rate=done / max(spent, 1e-9))
    else:
        bar.advance(done, amount=done)


def agreed_to_stop(signals: Signals, engine: Engine, turn: int, *, last: bool) -> bool:
    """Whether a signal reached any rank; asking the ranks costs a wait."""
    if engine.world == 1:
        return signals.asked
    return (last or turn % 8 == 7) and engine.any(signals.asked)


def stopped(run: Run, done: int, layout: Layout) -> str:
    """What is said when a signal ended it."""
    there = len(layout.finished) + sum((run.folder / target.file).exists() for target in layout.todo)
    of = f"{there} of {len(layout.finished) + len(layout.todo)} shards are finished"
    return f"Stopped after {done:,} pictures; {of}. The same command {'goes on' if there else 'begins it anew'}."


# -- ranks -----------------------------------------------------------------------


def on_all(engine: Engine, make: Callable[[], T]) -> T:
    """What the first rank makes, on every rank."""
    box: list[Any] = [make() if engine.leads else None]
    if engine.world > 1:
        dist.broadcast_object_list(box)
    return box[0]  # type: ignore[no-any-return]


def from_all(engine: Engine, own: T) -> list[T]:
    """What each rank has, on every rank."""
    box: list[Any] = [own] * engine.world
    if engine.world > 1:
        dist.all_gather_object(box, own)
    return box


def refuse_other_listing(layout: Layout, splits: dict[str, Pictures], engine: Engine) -> None:
    """Ranks that see other pictures than the first one are a DataError."""
    stamps = {} if engine.leads else {split: stamps_of(pictures) for split, pictures in splits.items()}
    if engine.any(not engine.leads and listing_of(stamps) != layout.listing):
        raise DataError(
            "The processes do not see the same pictures. Leave the folder as it is while they start, and give all of them the same."
        )


# -- saving ----------------------------------------------------------------------


def save(
    config: EncodeDataset,
    layout: Layout,
    splits: dict[str, Pictures],
    everything: list[tuple[list[Shard | None], dict[str, list[dict[str, Any]]]]],
    source: Path,
    rescale: str,
    run: Run,
) -> Manifest:
    """Write latents.json, by which the cache is whole, and delete what it replaces."""
    written = {shard.file: shard for found, _ in everything for shard in found if shard is not None}
    rows = {
        split: [shard for each in row if (shard := written.get(each.file) if isinstance(each, Target) else each) is not None]
        for split, row in layout.shards.items()
    }
    items = {split: [item for shard in row for item in shards.read_items(run.folder, shard)] for split, row in rows.items()}
    met = {split: [bad for _, each in everything for bad in each[split]] for split in splits}
    skipped = {split: note_skipped(pictures, items[split], met[split]) for split, pictures in splits.items()}
    tally = Tally()
    for shard in rows["train"]:
        assert shard.sums is not None
        tally.merge(shard.sums)
    measured = tally.statistics(rescale)
    classes = splits["train"].classes
    manifest = {
        "format": FORMAT,
        "moments": layout.store.moments,
        "latent": layout.store.latent,
        "dtype": layout.store.dtype,
        "codes": codes_in_use(run.folder, layout.store, rows["train"]),
        "flipped": config.flip,
        "rescale": rescale,
        "statistics": (layout.before.statistics if layout.before else measured).model_dump(),
        "measured": measured.model_dump(),
        "classes": classes,
        "label_counts": shards.label_counts(items["train"], len(classes)),
        "data": config.data,
        "image": config.image.model_dump(mode="json"),
        "autoencoder": layout.preparation["autoencoder"],
        "preparation": layout.preparation,
        "fingerprint": fingerprint_of(layout, classes, items),
        "skipped": {split: [splits[split].stamp(bad["index"]) for bad in bad_ones] for split, bad_ones in skipped.items()},
        "splits": {split: [shard.model_dump() for shard in row] for split, row in rows.items() if row},
    }
    write_bad(run.folder, [bad for bad_ones in skipped.values() for bad in bad_ones])
    with weights.replacing(run.folder / "autoencoder.safetensors") as temporary:
        shutil.copyfile(source, temporary)
    weights.write_text(run.folder / "latents.json", json.dumps(manifest, indent=1) + "\n")
    shards.sweep(run.folder, [shard.file for row in rows.values() for shard in row], splits=list(splits))
    return manifests.read(run.folder)


def note_skipped(pictures: Pictures, items: list[Item], met: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """{"index", "file_name", "reason"} of the pictures that are not among the items, in order; DataError when they are too many."""
    stored: dict[str, int] = {}
    for item in items:
        stored[item.stamp] = stored.get(item.stamp, 0) + 1
    known = {bad["index"]: bad for bad in [*met, *pictures.bad]}
    missing = []
    for index in range(len(pictures)):
        stamp = pictures.stamp(index)
        stored[stamp] = stored.get(stamp, 0) - 1
        if stored[stamp] < 0:
            missing.append(index)
    for index in missing:
        if index not in known:  # met by a command that was interrupted
            again = [bad for bad in pictures.look(index)[1] if bad["index"] == index]
            reason = "It could not be read when the others were encoded."
            known[index] = again[0] if again else {"index": index, "file_name": pictures.stamp(index), "reason": reason}
    pictures.report([known[index] for index in missing])
    return [known[index] for index in missing]


def write_bad(folder: Path, rows: list[dict[str, Any]]) -> None:
    """bad_images.jsonl with these rows alone, or no such file."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    if lines:
        weights.write_text(folder / "bad_images.jsonl", "".join(lines))
    else:
        (folder / "bad_images.jsonl").unlink(missing_ok=True)


def fingerprint_of(layout: Layout, classes: list[str], items: dict[str, list[Item]]) -> str:
    """SHA-256 over what the cache holds: the preparation, and every item with its label and caption, in order."""
    digest = hashlib.sha256(json.dumps([layout.preparation, layout.store.dtype, classes], sort_keys=True).encode())
    for split, rows in items.items():
        for item in rows:
            digest.update(f"\n{split} {json.dumps(item)}".encode())
    return digest.hexdigest()


# -- saying ----------------------------------------------------------------------


def result_of(run: Run, manifest: Manifest, encoded: int) -> dict[str, Any]:
    """What --json prints."""
    return {
        "cache": str(run.folder),
        "latent": list(manifest.latent),
        "items": {split: manifest.count(split) for split in manifest.splits},
        "encoded": encoded,
        "bytes_per_item": manifest.item_bytes,
        "codes": manifest.codes and manifest.codes.model_dump(),
        "statistics": manifest.statistics.model_dump(),
        "drift": manifests.drift(manifest.statistics, manifest.measured or manifest.statistics),
    }


def keep_finished(run: Run, layout: Layout, voice: Voice) -> dict[str, Any]:
    """Nothing is to be done."""
    assert layout.before is not None
    counts = ", ".join(f"{layout.before.count(split):,} {split}" for split in layout.before.splits)
    skipped = sum(len(each) for each in layout.before.skipped.values())
    voice.say(f"{run.folder} is complete already: {counts}{f'; {skipped} unreadable (bad_images.jsonl)' if skipped else ''}.")
    voice.say(f"They are stored as {layout.before.stored}.")
    return result_of(run, layout.before, 0)


def say_saved(run: Run, layout: Layout, manifest: Manifest, voice: Voice) -> dict[str, Any]:
    """What there is now, what changed, and whether the statistics have drifted."""
    sizes = " x ".join(str(side) for side in manifest.latent)
    train, val = (manifest.count(split) for split in SPLITS)
    before, targets = layout.before, [shard for row in layout.shards.values() for shard in row if isinstance(shard, Target)]
    kept = sum(len(target.rows) for target in targets) + sum(
        shard.count for row in layout.shards.values() for shard in row if isinstance(shard, Shard)
    )
    if before is not None:
        gone = sum(before.count(split) for split in before.splits) - kept
        voice.say(f"{kept:,} latents stay, {train + val - kept:,} are encoded, {gone:,} are gone.")
    voice.say(f"{train:,} + {val:,} latents of {sizes} are in {run.folder}, stored as {manifest.stored}.")
    result = result_of(run, manifest, train + val - kept)
    if result["drift"] > DRIFT and run.writes:
        voice.warn(
            f"The statistics of the latents have drifted by {result['drift']:.1%} of a deviation since they were frozen. Latents are whitened "
            "by the frozen ones, which models of this cache carry. To measure anew, and then train anew: ldmctl encode-dataset --overwrite."
        )
    return result


# -- checking --------------------------------------------------------------------


def verify_cache(folder: str | Path, *, voice: Voice) -> dict[str, Any]:
    """Read every file of a finished cache and compare it with its hash; a MismatchError says what is wrong. Needs no pictures."""
    place = Path(folder).expanduser()
    manifest = manifests.read(place)
    wrong = list(shards.faults(place, manifest))
    file = place / "autoencoder.safetensors"
    try:
        if autoencoder_fingerprint(file) != manifest.autoencoder["fingerprint"]:
            wrong.append(f"{file} is not the autoencoder that made the latents.")
    except (MismatchError, LookupError) as error:
        wrong.append(str(error) if isinstance(error, MismatchError) else f"{file} is damaged: its header lacks {error}.")
    if wrong:
        raise MismatchError(
            "\n  ".join([f"{place} is not as it was written:", *wrong]) + "\nEncode again: ldmctl encode-dataset --overwrite."
        )
    counts = {split: manifest.count(split) for split in manifest.splits}
    files = sum(len(row) for row in manifest.splits.values())
    voice.say(f"{place} is whole: {', '.join(f'{count:,} {split}' for split, count in counts.items())} in {files} shards.")
    return {"cache": str(place), "items": counts, "shards": files, "whole": True}
