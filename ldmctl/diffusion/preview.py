"""Samples of fixed seeds and labels, made while training."""

from pathlib import Path
from typing import Any

from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.diffusion.labels import trained_classes
from ldmctl.diffusion.network import Network
from ldmctl.diffusion.sampling import sample_latents
from ldmctl.errors import ConfigError
from ldmctl.latents.codec import Codec
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.reader import Latents
from ldmctl.pictures.images import to_uint8
from ldmctl.pictures.png import grid, write_png
from ldmctl.training.engine import Engine


def learns_without_labels(config: FitDiffusion, train: Latents) -> bool:
    """Whether the network also learns from items without their label, as guidance wants it."""
    return config.conditioner is None or config.drop > 0 or bool((train.labels < 0).any())


def learns_with_labels(config: FitDiffusion, train: Latents) -> bool:
    """Whether the network ever sees a label: it listens to them, not all are dropped, and some item has one."""
    return config.conditioner is not None and config.drop < 1 and bool((train.labels >= 0).any())


def check_preview(config: FitDiffusion, train: Latents) -> None:
    """A ConfigError if previews need "no class" and the network never learns what that is."""
    if config.preview.guidance != 1 and not learns_without_labels(config, train):
        raise ConfigError(
            f"preview.guidance={config.preview.guidance:g} needs a network that also learns without labels; with drop=0 this one never does, "
            "since every item has its label. Take drop=0.1, or preview.guidance=1."
        )
    if config.preview.guidance not in (0, 1) and config.conditioner is not None and not learns_with_labels(config, train):
        why = "drop=1 leaves every label out" if config.drop == 1 else "no item of the cache has one"
        raise ConfigError(
            f"preview.guidance={config.preview.guidance:g} needs a network that learns with labels, and this one never sees any: {why}. "
            "Take drop=0.1 and a cache with labels, or preview.guidance=1."
        )


def save_preview(
    config: FitDiffusion, network: Network, codec: Codec, schedule: Any, sampler: Any, manifest: Manifest, path: Path, engine: Engine
) -> None:
    """A grid of samples whose seeds and labels never change, written by the first rank."""
    count = config.preview.count
    classes = trained_classes(manifest.label_counts) if config.conditioner is not None and config.drop < 1 else []
    classes = classes or [-1]
    labels = [classes[index % len(classes)] for index in range(count)]
    latent = sample_latents(
        network,
        schedule,
        sampler,
        engine,
        prediction=config.prediction,
        shape=manifest.latent,
        seeds=range(count),
        labels=labels,
        guidance=config.preview.guidance if config.conditioner is not None else 1.0,
        steps=config.preview.steps,
        batch=count,
    )
    size = int(manifest.image["size"])
    if engine.leads:
        write_png(path, grid(to_uint8(codec.decode(latent, (size, size)))))
