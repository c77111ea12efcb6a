"""Between the stages: every picture through the encoder once, into a cache of latents and their statistics.

What the cache shall hold is laid out first, from the pictures and from what is
there: `layout` and `shards` say how. So an interrupted command goes on, and a finished cache
takes up pictures that were added, changed or removed, by the same five steps.
Ranks share the shards to be written; the first one plans, and writes latents.json.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.console import Voice, duration
from ldmctl.errors import DataError, MismatchError, Stopped
from ldmctl.latents import integrity
from ldmctl.latents import manifest as manifests
from ldmctl.latents import writer as shards
from ldmctl.latents.background import Background
from ldmctl.latents.codec import Codec, autoencoder_fingerprint, load_autoencoder
from ldmctl.latents.encoding import drawing, encoded, landed, one_behind
from ldmctl.latents.layout import Layout, lay_out, listing_of, preparation_of, stamps_of
from ldmctl.latents.manifest import DRIFT, FORMAT, Manifest, Shard
from ldmctl.latents.plan import Item, Target
from ldmctl.latents.statistics import Tally
from ldmctl.latents.store import codes_in_use, refuse_without_codes
from ldmctl.latents.writer import Rows
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.loading import open_pictures
from ldmctl.signals import Signals
from ldmctl.storage import weights
from ldmctl.storage.record import describe_plugins, model_file
from ldmctl.storage.run import Run, open_run
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine

SPLITS = ("train", "val")
T = TypeVar("T")


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
    with (
        Background(waiting=0 if engine.device.type == "cpu" else 2) as writer,
        voice.bar("encoding", sum(len(target.new) for target in mine)) as bar,
    ):
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
    items = {split: [item for shard in row for item in integrity.read_items(run.folder, shard)] for split, row in rows.items()}
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
