"""Between the stages: every picture through the encoder once, into a cache of latents and their statistics.

What the cache will hold is laid out first, from the pictures and from what is
there: `layout` and `shards` say how. So an interrupted command continues, and a finished cache
takes up pictures that were added, changed or removed, by the same five steps.
Ranks share the shards to be written; the first one plans, and writes latents.json.
"""

import time
from pathlib import Path
from typing import Any, BinaryIO

from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.console import Console, duration
from ldmctl.errors import DataError, MismatchError, Stopped
from ldmctl.latents import manifest as manifests
from ldmctl.latents import writer
from ldmctl.latents.background import Background
from ldmctl.latents.codec import Codec, autoencoder_fingerprint, load_autoencoder
from ldmctl.latents.commit import put_back, save
from ldmctl.latents.encoding import drawing, encoded, landed, one_behind
from ldmctl.latents.items import Item
from ldmctl.latents.layout import Layout, lay_out, listing_of, preparation_of, stamps_of
from ldmctl.latents.manifest import DRIFT, Manifest, Shard
from ldmctl.latents.plan import Target
from ldmctl.latents.store import refuse_without_codes
from ldmctl.latents.writer import Rows
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.introduction import introduce
from ldmctl.pictures.loading import open_pictures
from ldmctl.pictures.telling import Telling, say_left_out
from ldmctl.signals import Signals
from ldmctl.storage.record import describe_plugins, model_file
from ldmctl.storage.run import Run, open_run
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine, from_all, on_all

SPLITS = ("train", "val")


def encode_dataset(config: EncodeDataset, out: str | Path, *, console: Console, overwrite: bool = False) -> dict[str, Any]:
    """Fill the cache `out` with the latents of a data set, or bring it up to date; the same call continues where it stopped."""
    # Build the parts.
    engine = engines.start(config.machine)
    source = model_file(config.run, verb="fit-ae")
    autoencoder, header = load_autoencoder(source, engine)
    splits = {split: open_pictures(config, split) for split in SPLITS}
    introduce(splits, console, leads=engine.leads)
    for pictures in splits.values():
        pictures.contents = True
    if config.image.channels != header["context"]["image_channels"]:
        raise MismatchError(
            f"{source} encodes pictures of {header['context']['image_channels']} channels, image.channels={config.image.channels} was asked for."
        )
    refuse_without_codes(config, autoencoder)
    codec = Codec(autoencoder, engine, tile=config.machine.tile)
    preparation = preparation_of(config, {"type": header["type"], "fingerprint": autoencoder_fingerprint(source)})

    # Restore or start.
    described = describe_plugins(("dataset", config.dataset))
    run = open_run(out, config, parent=config.run, plugins=described, overwrite=overwrite, writes=engine.leads, say=console.say)
    with run, source.open("rb") as original, Signals(console.say) as signals:
        layout = on_all(engine, lambda: lay_out(config, splits, codec, preparation, run))
        refuse_other_listing(layout, splits, engine)
        say_left_out(splits, console, run.folder / "bad_images.jsonl")
        if layout.complete:
            return keep_finished(run, layout, original, console)
        say_damaged(layout, console)
        if layout.restored:
            console.warn(
                f"{run.folder / 'latents.json'} is damaged: it is written again from the shards, and statistics are measured again."
            )

        # Encode this rank's shards.
        written = encode(config, layout, splits, codec, run, signals, console)

        # Save and say where.
        everything = from_all(engine, (written, {split: pictures.bad for split, pictures in splits.items()}))
        Telling(splits, engine, console).at_the_end()
        manifest = on_all(engine, lambda: save(config, layout, splits, everything, original, autoencoder.rescale, run))
        return say_saved(run, layout, manifest, console)


# -- encoding --------------------------------------------------------------------


def encode(
    config: EncodeDataset, layout: Layout, splits: dict[str, Pictures], codec: Codec, run: Run, signals: Signals, console: Console
) -> list[Shard | None]:
    """Write this rank's shards and describe them, and those that an interrupted command left finished."""
    engine = codec.engine
    mine = layout.todo[engine.rank :: engine.world]
    turns = max(sum(len(target.chunks(config.batch)) for target in layout.todo[rank :: engine.world]) for rank in range(engine.world))
    parts: list[tuple[Rows, list[Item]]] = []
    noted = dict.fromkeys(splits, 0)  # unreadable pictures
    done, began = 0, time.monotonic()
    if layout.finished:
        console.say(f"{len(layout.finished)} of {len(layout.finished) + len(layout.todo)} shards are there from before.")
    with (
        Background(waiting=0 if engine.device.type == "cpu" else 2) as background,
        console.bar("encoding", sum(len(target.new) for target in mine)) as bar,
    ):
        for target in layout.finished[engine.rank :: engine.world]:
            background.put(writer.describe, run.folder / target.file, drawing(target, codec), target)
        for target in mine:
            if not target.new:  # rows are left out or described again
                background.put(writer.write, run.folder, target, [], drawing(target, codec))
        stream = one_behind(encoded(config, layout, mine, splits, codec))
        for turn in range(turns):
            if (batch := next(stream, None)) is not None:
                parts.append((layout.store.checked(landed(batch), batch.items), batch.items))
                met = splits[batch.target.split].bad
                run.note_bad(met[noted[batch.target.split] :])
                noted[batch.target.split] = len(met)
                done += batch.asked
                if batch.last:
                    background.put(writer.write, run.folder, batch.target, parts, drawing(batch.target, codec))
                    run.update(step=run.record.get("step", 0) + 1)  # there is something to lose now
                    parts = []
                show(bar, done, time.monotonic() - began)
            if agreed_to_stop(signals, engine, turn, last=turn == turns - 1):
                background.results()
                raise Stopped(stopped(run, done, layout))
        found = background.results()
    if done:
        spent = time.monotonic() - began
        console.say(f"{done:,} picture{'s' * (done != 1)} encoded in {duration(spent)}, {done / max(spent, 1e-9):,.0f} pictures/s.")
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
    return f"Stopped after {done:,} pictures; {of}. The same command {'continues' if there else 'starts over'}."


# -- ranks -----------------------------------------------------------------------


def refuse_other_listing(layout: Layout, splits: dict[str, Pictures], engine: Engine) -> None:
    """Ranks that see other pictures than the first one are a DataError."""
    stamps = {} if engine.leads else {split: stamps_of(pictures) for split, pictures in splits.items()}
    if engine.any(not engine.leads and listing_of(stamps) != layout.listing):
        raise DataError(
            "The processes do not see the same pictures. Leave the folder as it is while they start, and give all of them the same."
        )


# -- saving ----------------------------------------------------------------------


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


def say_damaged(layout: Layout, console: Console) -> None:
    """Which shards are made anew, and why."""
    if not layout.damaged or layout.before is None:
        return
    shards = [shard for row in layout.before.splits.values() for shard in row]
    lost = sum(shard.count for shard in shards if shard.file in layout.damaged)
    several = (
        f"{len(layout.damaged)} of {len(shards)} shards are lost or damaged" if len(layout.damaged) > 1 else "1 shard is lost or damaged"
    )
    some = "".join(f"\n  {fault}" for fault in list(layout.damaged.values())[:8])
    console.warn(f"{several}, and their {lost:,} pictures are encoded again; the other {len(shards) - len(layout.damaged)} stay.{some}")


def keep_finished(run: Run, layout: Layout, original: BinaryIO, console: Console) -> dict[str, Any]:
    """Nothing is to be encoded; a copy of the autoencoder that is lost or damaged is put back."""
    assert layout.before is not None
    if run.writes and put_back(original, run.folder / "autoencoder.safetensors", layout.preparation["autoencoder"]["fingerprint"]):
        console.warn(f"{run.folder / 'autoencoder.safetensors'} was lost or damaged: it is copied again from {original.name}.")
    counts = ", ".join(f"{layout.before.count(split):,} {split}" for split in layout.before.splits)
    skipped = sum(len(each) for each in layout.before.skipped.values())
    console.say(f"{run.folder} is complete already: {counts}{f'; {skipped} unreadable (bad_images.jsonl)' if skipped else ''}.")
    console.say(f"They are stored as {layout.before.stored}.")
    return result_of(run, layout.before, 0)


def say_saved(run: Run, layout: Layout, manifest: Manifest, console: Console) -> dict[str, Any]:
    """What there is now, what changed, and whether the statistics have drifted."""
    sizes = " x ".join(str(side) for side in manifest.latent)
    train, val = (manifest.count(split) for split in SPLITS)
    before, targets = layout.before, [shard for row in layout.shards.values() for shard in row if isinstance(shard, Target)]
    kept = sum(len(target.rows) for target in targets) + sum(
        shard.count for row in layout.shards.values() for shard in row if isinstance(shard, Shard)
    )
    if before is not None:
        lost = sum(shard.count for row in before.splits.values() for shard in row if shard.file in layout.damaged)  # and said before
        gone = sum(before.count(split) for split in before.splits) - kept - lost
        console.say(f"{kept:,} latents stay, {train + val - kept:,} are encoded, {gone:,} are gone.")
    console.say(f"{train:,} + {val:,} latents of {sizes} are in {run.folder}, stored as {manifest.stored}.")
    result = result_of(run, manifest, train + val - kept)
    if result["drift"] > DRIFT and run.writes:
        console.warn(
            f"The statistics of the latents have drifted by {result['drift']:.1%} of a deviation since they were frozen. Latents are whitened "
            "by the frozen ones, which models of this cache carry. To measure them again, and then to train again: ldmctl encode-dataset --overwrite."
        )
    return result
