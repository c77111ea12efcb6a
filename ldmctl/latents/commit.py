"""The end of encoding: latents.json, by which a cache is whole, and what it replaces."""

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.errors import MismatchError
from ldmctl.latents import manifest as manifests
from ldmctl.latents import writer
from ldmctl.latents.codec import autoencoder_fingerprint
from ldmctl.latents.items import Item, label_counts, read_items
from ldmctl.latents.layout import Layout
from ldmctl.latents.manifest import FORMAT, Manifest, Shard
from ldmctl.latents.plan import Target
from ldmctl.latents.statistics import RunningStatistics
from ldmctl.latents.store import codes_in_use
from ldmctl.pictures.batches import Pictures
from ldmctl.storage import weights
from ldmctl.storage.lines import write_line
from ldmctl.storage.run import Run


def save(
    config: EncodeDataset,
    layout: Layout,
    splits: dict[str, Pictures],
    everything: list[tuple[list[Shard | None], dict[str, list[dict[str, Any]]]]],
    original: BinaryIO,
    rescale: str,
    run: Run,
) -> Manifest:
    """Write latents.json, by which the cache is whole, and delete what it replaces."""
    written = {shard.file: shard for found, _ in everything for shard in found if shard is not None}
    rows = {
        split: [shard for each in row if (shard := written.get(each.file) if isinstance(each, Target) else each) is not None]
        for split, row in layout.shards.items()
    }
    items = {split: [item for shard in row for item in read_items(run.folder, shard)] for split, row in rows.items()}
    met = {split: [bad for _, each in everything for bad in each[split]] for split in splits}
    skipped = {split: note_skipped(pictures, items[split], met[split]) for split, pictures in splits.items()}
    running = RunningStatistics()
    for shard in rows["train"]:
        assert shard.sums is not None
        running.merge(shard.sums)
    measured = running.statistics(rescale)
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
        "label_counts": label_counts(items["train"], len(classes)),
        "captions": {split: sum(bool(item.text.strip()) for item in rows) for split, rows in items.items()},
        "maps": any(getattr(pictures.dataset, "has_maps", False) for pictures in splits.values()),
        "data": config.data,
        "image": config.image.model_dump(mode="json"),
        "autoencoder": layout.preparation["autoencoder"],
        "preparation": layout.preparation,
        "fingerprint": fingerprint_of(layout, classes, items),
        "contents": contents_of(items),
        "skipped": {split: [splits[split].stamp(bad["index"]) for bad in bad_ones] for split, bad_ones in skipped.items()},
        "splits": {split: [shard.model_dump() for shard in row] for split, row in rows.items() if row},
    }
    left_out = [row for pictures in splits.values() for row in pictures.left_out]
    write_bad(run.folder, [*(bad for bad_ones in skipped.values() for bad in bad_ones), *left_out])
    copy_autoencoder(original, run.folder / "autoencoder.safetensors")
    weights.write_text(run.folder / "latents.json", json.dumps(manifest, indent=1) + "\n")
    writer.sweep(run.folder, [shard.file for row in rows.values() for shard in row], splits=list(splits))
    return manifests.read(run.folder)


def copy_autoencoder(original: BinaryIO, place: Path) -> None:
    """Its file, as it is, into the cache: the one that was opened before anything was encoded, whatever has become of its name."""
    original.seek(0)
    with weights.replacing(place) as temporary, temporary.open("wb") as copy:
        shutil.copyfileobj(original, copy, length=1 << 20)


def put_back(original: BinaryIO, place: Path, fingerprint: str) -> bool:
    """Copy the autoencoder into a cache again where its file is not the one with this fingerprint -> whether that was so."""
    with suppress(MismatchError, LookupError):
        if autoencoder_fingerprint(place) == fingerprint:
            return False
    copy_autoencoder(original, place)
    return True


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
    lines = [write_line(row) for row in rows]
    if lines:
        weights.write_text(folder / "bad_images.jsonl", "".join(lines))
    else:
        (folder / "bad_images.jsonl").unlink(missing_ok=True)


def contents_of(items: dict[str, list[Item]]) -> dict[str, str]:
    """A hash of which pictures there are, of their labels and of their captions, whatever their order."""
    parts: dict[str, list[Any]] = {
        "pictures": [[split, item.stamp] for split, rows in items.items() for item in rows],
        "labels": [[split, item.stamp, item.label] for split, rows in items.items() for item in rows],
        "captions": [[split, item.stamp, item.text, *item.texts] for split, rows in items.items() for item in rows],
    }
    return {name: hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest() for name, rows in parts.items()}


def fingerprint_of(layout: Layout, classes: list[str], items: dict[str, list[Item]]) -> str:
    """SHA-256 over what the cache holds: the preparation, and every item with its label and caption, in order."""
    digest = hashlib.sha256(json.dumps([layout.preparation, layout.store.dtype, classes], sort_keys=True).encode())
    for split, rows in items.items():
        for item in rows:
            digest.update(f"\n{split} {json.dumps([item.identity, item.text, item.label, *item.more])}".encode())
    return digest.hexdigest()
