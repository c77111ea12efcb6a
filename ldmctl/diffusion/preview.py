"""Samples of fixed seeds and labels, made while training."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ldmctl import registry
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.conditions import SLOTS
from ldmctl.diffusion.labels import trained_classes
from ldmctl.diffusion.network import Network
from ldmctl.diffusion.sampling import sample_latents
from ldmctl.errors import ConfigError
from ldmctl.latents.codec import Codec
from ldmctl.latents.conditions import NOTHING, Several, on_device
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.reader import Latents
from ldmctl.pictures.batches import evenly
from ldmctl.pictures.images import to_uint8
from ldmctl.pictures.png import grid, write_png
from ldmctl.storage.atomic import write_text
from ldmctl.training.engine import Engine
from ldmctl.training.order import generator


def learns_without_labels(config: FitDiffusion, train: Latents, known: Several = NOTHING) -> bool:
    """Whether the network also learns from items of which nothing is known, as guidance wants it; `known` says which have a caption or a map."""
    return config.drop > 0 or all(learns_without(config, train, slot, known) for slot in SLOTS)


def learns_without(config: FitDiffusion, train: Latents, slot: str, known: Several = NOTHING) -> bool:
    """Whether the network learns from items without this one condition, or never hears it."""
    if getattr(config.conditions, slot) is None or config.conditions.dropped(slot) > 0:
        return True
    if slot == "picture":  # masks are drawn, and most hide everything; a small picture is always there
        return getattr(registry.load("conditioner", config.conditions.picture.type), "wants", None) == "latent"  # type: ignore[union-attr]
    return bool((train.labels < 0).any()) if slot == "label" else known.share(slot) < 1


def learns_with_labels(config: FitDiffusion, train: Latents) -> bool:
    """Whether the network ever sees a label: it listens to them, not all are dropped, and some item has one."""
    label = config.conditions.label is not None and config.drop < 1 and config.conditions.dropped("label") < 1
    return label and bool((train.labels >= 0).any())


def check_preview(config: FitDiffusion, train: Latents) -> None:
    """A ConfigError if previews need "no class" and the network never learns what that is."""
    if config.preview.guidance != 1 and not learns_without_labels(config, train):
        raise ConfigError(
            f"preview.guidance={config.preview.guidance:g} needs a network that also learns without labels; with drop=0 this one never does, "
            "since every item has its label. Take drop=0.1, or preview.guidance=1."
        )
    alone = config.conditions.slots == ["label"]
    if config.preview.guidance not in (0, 1) and alone and not learns_with_labels(config, train):
        why = "drop=1 leaves every label out" if config.drop == 1 else "no item of the cache has one"
        raise ConfigError(
            f"preview.guidance={config.preview.guidance:g} needs a network that learns with labels, and this one never sees any: {why}. "
            "Take drop=0.1 and a cache with labels, or preview.guidance=1."
        )


def previewed_split(sizes: Mapping[str, int], known: Mapping[str, Several]) -> str:
    """The split whose items previews are made of: held-out ones, or training ones where none are held out, or none of them has what is heard."""
    heard = known["val"]
    return "val" if sizes["val"] and all(heard.share(slot) for slot in heard.sources) else "train"


def save_preview(
    config: FitDiffusion,
    network: Network,
    codec: Codec,
    schedule: Any,
    sampler: Any,
    manifest: Manifest,
    path: Path,
    engine: Engine,
    latents: Latents | None = None,
    several: Several = NOTHING,
) -> None:
    """A grid of samples whose seeds and labels never change, written by the first rank.

    Where more than labels is known, it is what is known of items of a split (`previewed_split`), whose own pictures stand to the right of
    their samples, and whose captions stand in captions.txt, one on a line.
    """
    count, size = config.preview.count, int(manifest.image["size"])
    shown, pictures = [], {}
    if several.sources and latents is not None and len(latents):
        items = evenly(len(latents), count)
        items = items.repeat(-(-count // len(items)))[:count]
        pictures = on_device(several.known(items), engine.device)
        shown = [codec.whiten(codec.draw(latents.stored(items).to(engine.device), generator(engine.device, "preview")))]
        labels = latents.labels[items].tolist()
    else:
        classes = trained_classes(manifest.label_counts) if config.conditions.label is not None and config.drop < 1 else []
        labels = [(classes or [-1])[index % len(classes or [-1])] for index in range(count)]
    latent = sample_latents(
        network,
        schedule,
        sampler,
        engine,
        prediction=config.prediction,
        shape=manifest.latent,
        seeds=range(count),
        asks=[Ask(label) for label in labels],
        guidance=config.preview.guidance if network.conditioners else 1.0,
        steps=config.preview.steps,
        batch=count,
        pictures=pictures,
    )
    if engine.leads:
        decoded = [to_uint8(codec.decode(each, (size, size))) for each in (latent, *shown)]
        columns = 2 * math.ceil(math.sqrt(count / 2)) if shown else None  # an even number, so that no pair breaks over two rows
        write_png(path, grid(torch.stack(decoded, dim=1).flatten(0, 1), columns))
        if "text" in several.sources and shown and latents is not None:
            texts = {row: item["text"] for row, item in zip(sorted(set(items.tolist())), latents.items(set(items.tolist())), strict=True)}
            lines = [" ".join(texts[row].split()) for row in items.tolist()]
            write_text(path.parent / "captions.txt", "\n".join(lines) + "\n")
