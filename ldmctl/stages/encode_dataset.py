"""Between the stages: every picture through the encoder once, into a cache of latents and their statistics."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from ldmctl import engine as engines
from ldmctl import manifest as manifests
from ldmctl import weights
from ldmctl.codec import Codec, autoencoder_fingerprint, load_autoencoder
from ldmctl.engine import Engine, generator
from ldmctl.errors import DataError, MismatchError, Stopped
from ldmctl.feed import in_order, on_device, open_pictures
from ldmctl.manifest import FORMAT, Shard
from ldmctl.pictures import Pictures
from ldmctl.run import Run, describe_plugins, model_file, open_run
from ldmctl.schemas import EncodeDataset
from ldmctl.shards import DTYPES, ShardWriter, Tally
from ldmctl.signals import Signals
from ldmctl.voice import Voice

COARSE = 0.01  # of a channel's deviation: float16 rounds finer than this, or float32 is taken


def encode_dataset(config: EncodeDataset, out: str | Path, *, voice: Voice, overwrite: bool = False) -> dict[str, Any]:
    """Fill the cache `out` with the latents of a data set; done already, it says so."""
    # Build the parts.
    engine = engines.start(config.machine)
    source = model_file(config.run, verb="fit-ae")
    autoencoder, header = load_autoencoder(source, engine)
    splits = {split: open_pictures(config, split) for split in ("train", "val")}
    if config.image.channels != header["context"]["image_channels"]:
        raise MismatchError(
            f"{source} encodes pictures of {header['context']['image_channels']} channels, image.channels={config.image.channels} was asked for."
        )
    own = {"type": header["type"], "fingerprint": autoencoder_fingerprint(source)}
    identity = fingerprint_of(config, splits, own)

    # Restore or start.
    run = open_run(out, config, parent=config.run, plugins=describe_plugins(("dataset", config.dataset)), overwrite=overwrite)
    with run:
        manifest_file = run.folder / "latents.json"
        if manifest_file.exists():
            return keep_finished(run, identity, own, voice)
        for leftover in [*run.folder.glob("*-[0-9]*.safetensors"), *run.folder.glob("*-[0-9]*.items.jsonl")]:
            leftover.unlink()

        # Encode, split by split.
        codec, tally, labels = Codec(autoencoder, engine, tile=config.machine.tile), Tally(), Counter[int]()
        dtype = choose_dtype(config, splits["train"], codec, engine)
        run.note_bad(splits["train"].bad)  # met already
        shards: dict[str, list[Shard]] = {}
        for split, pictures in splits.items():
            if len(pictures):
                shards[split] = encode_split(
                    config, split, pictures, codec, dtype, run, engine, voice, tally if split == "train" else None, labels
                )

        # Save and say where.
        shutil.copyfile(source, run.folder / "autoencoder.safetensors")
        first = splits["train"].batch([(0, None)]).image
        moments = codec.encode(on_device(first, engine))
        manifest = {
            "format": FORMAT,
            "moments": list(moments.shape[1:]),
            "latent": list(codec.draw(moments).shape[1:]),
            "dtype": str(dtype).removeprefix("torch."),
            "flipped": config.flip,
            "rescale": autoencoder.rescale,
            "statistics": tally.statistics(autoencoder.rescale).model_dump(),
            "classes": splits["train"].classes,
            "label_counts": [labels[index] for index in range(len(splits["train"].classes))],
            "data": config.data,
            "image": config.image.model_dump(mode="json"),
            "autoencoder": own,
            "fingerprint": identity,
            "splits": {split: [shard.model_dump() for shard in rows] for split, rows in shards.items()},
        }
        weights.write_text(manifest_file, json.dumps(manifest, indent=1) + "\n")
        counts = {split: sum(shard.count for shard in rows) for split, rows in shards.items()}
        sizes = " x ".join(str(side) for side in manifest["latent"])
        voice.say(f"{counts.get('train', 0):,} + {counts.get('val', 0):,} latents of {sizes} are in {run.folder}.")
        return {"cache": str(run.folder), "latent": manifest["latent"], "items": counts, "statistics": manifest["statistics"]}


def encode_split(
    config: EncodeDataset,
    split: str,
    pictures: Pictures,
    codec: Codec,
    dtype: torch.dtype,
    run: Run,
    engine: Engine,
    voice: Voice,
    tally: Tally | None,
    labels: Counter[int],
) -> list[Shard]:
    """Shards of one split; the statistics and the labels of the training split are counted on the way."""
    writer = ShardWriter(run.folder, split, config.shard, dtype)
    done = 0
    with Signals(voice.say) as signals, voice.bar(f"encoding {split}", len(pictures)) as bar:
        for batch in in_order(pictures, config.batch, engine, wanted=config.workers):
            run.note_bad(batch.bad)
            good = [row for row, (asked, used) in enumerate(zip(batch.index, batch.used, strict=True)) if asked == used]
            done += len(batch.index)
            if good:
                image = on_device(batch.image[good], engine)
                rows = {"moments": codec.encode(image).cpu(), "labels": torch.tensor([batch.label[row] for row in good])}
                if config.flip:
                    rows["flipped"] = codec.encode(image.flip(-1)).cpu()
                writer.add(rows, [{"stamp": pictures.stamp(batch.used[row]), "text": batch.text[row]} for row in good])
                if tally is not None:
                    stored = rows["moments"].to(dtype).float().to(engine.device)
                    tally.add(codec.draw(stored, generator(engine.device, "posterior", done)))
                    labels.update(rows["labels"].tolist())
            bar.advance(done, amount=done)
            if signals.asked:
                raise Stopped(
                    f"Stopped after {done:,} of {len(pictures):,} pictures; nothing of the cache is used yet. The same command begins it anew."
                )
    return writer.close()


def choose_dtype(config: EncodeDataset, pictures: Pictures, codec: Codec, engine: Engine) -> torch.dtype:
    """float16 where its range and rounding are enough for the first pictures' moments, else float32."""
    if not len(pictures):
        raise DataError("There are no pictures to encode.")
    if config.dtype != "auto":
        return DTYPES[config.dtype]
    image = pictures.batch([(index, None) for index in range(min(32, len(pictures)))]).image
    moments = codec.encode(on_device(image, engine)).transpose(0, 1).flatten(1)
    error = (moments - moments.half().float()).square().mean(1).sqrt()
    fits = moments.abs().max() < 3e4 and bool((error <= COARSE * moments.std(1).clamp_min(1e-12)).all())
    return torch.float16 if fits else torch.float32


def fingerprint_of(config: EncodeDataset, splits: dict[str, Pictures], autoencoder: dict[str, Any]) -> str:
    """SHA-256 over what decides the latents: the autoencoder, the preparation and the stamp of every item."""
    image = {key: value for key, value in config.image.model_dump(mode="json").items() if key not in ("flip", "crop")}
    tile = config.machine.tile
    tiled = [tile] if tile is not None and config.image.size > tile else []  # smaller pictures come out the same
    digest = hashlib.sha256(json.dumps([autoencoder, image, config.flip, config.dtype, *tiled], sort_keys=True).encode())
    for split, pictures in splits.items():
        digest.update(f"\n{split} {pictures.classes}".encode())
        for index in range(len(pictures)):
            digest.update(f"\n{pictures.stamp(index)}".encode())
    return digest.hexdigest()


def keep_finished(run: Run, identity: str, own: dict[str, Any], voice: Voice) -> dict[str, Any]:
    """What there is, if it is of these pictures and this autoencoder; else a MismatchError."""
    found = manifests.read(run.folder)
    if found.fingerprint != identity:
        what = (
            "another autoencoder (or another state of it)"
            if found.autoencoder != own
            else "other pictures, pictures changed since, or in other tiles"
        )
        raise MismatchError(f"{run.folder} holds latents of {what}. Encode again with --overwrite, or into another --out.")
    counts = {split: found.count(split) for split in found.splits}
    voice.say(f"{run.folder} is complete already: {', '.join(f'{count:,} {split}' for split, count in counts.items())}.")
    return {"cache": str(run.folder), "latent": list(found.latent), "items": counts, "statistics": found.statistics.model_dump()}
