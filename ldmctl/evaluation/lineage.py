"""A run of fit-diffusion with all that it came from: its network, autoencoder, cache and pictures, as far as they are still there.

`checkup` asks it for latents, noise levels, estimates and earlier weights, and says what is wrong with them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmctl.config.presets import pictures_of
from ldmctl.config.relocated import beside
from ldmctl.config.resolve import resolve
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.config.schemas.shared import Coding
from ldmctl.diffusion.denoise import Denoise
from ldmctl.diffusion.network import Network, build_network, build_schedule, load_network
from ldmctl.diffusion.spacing import levels
from ldmctl.errors import MismatchError
from ldmctl.latents import manifest as manifests
from ldmctl.latents.behind import places_of
from ldmctl.latents.codec import Codec, load_autoencoder, statistics_of
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.reader import Latents, open_latents
from ldmctl.pictures.batches import Batch, evenly
from ldmctl.pictures.loading import open_pictures
from ldmctl.storage import weights
from ldmctl.storage.record import config_of, run_of
from ldmctl.training import order
from ldmctl.training import state as states
from ldmctl.training.engine import Engine
from ldmctl.training.fsdp import whole
from ldmctl.training.order import generator, micro_batches

SHOWN = 8  # pictures in a row
DECODED = 16  # latents that are decoded and compared, and samples
Row = tuple[str, Tensor]  # caption, pictures [n,C,H,W] in [-1, 1]
DECODED_AT_ONCE, ESTIMATED_AT_ONCE = 8, 16  # latents
LEVELS = (0.1, 25.6)  # sigma / alpha of the first and the last of five: a hundredth of noise, and next to no signal


class Items(NamedTuple):
    """Whitened latents of one split, evenly over it."""

    split: str
    rows: Tensor  # [N], their places in the split
    latent: Tensor  # [N,c,h,w]
    labels: Tensor  # [N]


@dataclass(frozen=True)
class Lineage:
    """A run of fit-diffusion and what can still be found of what it was fitted to."""

    folder: Path
    header: dict[str, Any]
    network: Network
    schedule: Any
    codec: Codec
    engine: Engine
    autoencoder: Path  # its file
    config: dict[str, Any]
    record: dict[str, Any]
    cache: Path
    manifest: Manifest | None = None
    splits: dict[str, Latents] = field(default_factory=dict)
    lacking: str = ""  # why there is no cache

    @property
    def size(self) -> tuple[int, int]:
        """H, W of a picture."""
        return (int(self.header["image"]["size"]), int(self.header["image"]["size"]))

    @property
    def unseen(self) -> str:
        """The split that tells most: held out, else training; '' without latents."""
        return next((split for split in ("val", "train") if split in self.splits), "")

    @property
    def trained(self) -> str:
        """How long the run was trained, with the keys that say so."""
        lr = self.config.get("loop", {}).get("lr")
        return f"after {self.header.get('step', 0):,} steps" + (f" at loop.lr={lr:g}" if isinstance(lr, int | float) else "")

    def take(self, split: str, count: int) -> Items:
        """Up to `count` whitened latents of a split, evenly over it; posterior noise is always the same."""
        latents = self.splits[split]
        rows = evenly(len(latents), count)
        stored = latents.stored(rows).to(self.engine.device)
        drawn = self.codec.draw(stored, generator(self.engine.device, "checkup", "posterior", split))
        labels = latents.labels[rows]
        known = labels if self.header.get("conditional", True) else torch.full_like(labels, -1)  # as the network was trained
        return Items(split, rows, self.codec.whiten(drawn), known)

    def decode(self, latent: Tensor) -> Tensor:
        """Whitened latents [N,c,h,w] -> pictures [N,C,H,W] in [-1, 1]."""
        return torch.cat([self.codec.decode(latent[rows], self.size) for rows in micro_batches(len(latent), DECODED_AT_ONCE)])


def open_lineage(source: Path, engine: Engine) -> Lineage:
    """The run that a model's file belongs to; its cache where that is still there and whole."""
    folder = run_of(source)
    network, header, _ = load_network(source, engine)
    config = config_of(folder) if (folder / "config.yaml").exists() else {}
    record = recorded(folder)
    cache = Path(beside(folder, str(config.get("latents") or record.get("parent") or "cache"))).expanduser()
    file = next((place for place in (folder, cache) if (place / "autoencoder.safetensors").exists()), folder) / "autoencoder.safetensors"
    codec = Codec(load_autoencoder(file, engine)[0], engine, statistics_of(header), tile=Coding().tile)
    lineage = Lineage(folder, header, network, build_schedule(header), codec, engine, file, config, record, cache)
    try:
        manifest = manifests.read(cache)
        if manifest.latent != tuple(header["latent"]):
            raise MismatchError(f"{cache} holds latents of {manifest.latent}, the run was fitted to {tuple(header['latent'])}.")
        splits = {split: open_latents(cache, manifest, split) for split in ("train", "val") if manifest.count(split)}
    except MismatchError as error:
        return replace(lineage, lacking=str(error))
    return replace(lineage, manifest=manifest, splits=splits)


def recorded(folder: Path) -> dict[str, Any]:
    """What run.json says; {} without one that can be read."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def originals(lineage: Lineage, items: Items) -> tuple[list[int], Batch]:
    """(which of these items have their picture still, those pictures and labels); a DataError or another if none has."""
    layer = pictures_of(lineage.cache)
    pictures = open_pictures(resolve(EncodeDataset, [layer], source=f"{lineage.cache / 'config.yaml'}"), items.split)
    places = places_of(pictures, list(lineage.splits[items.split].items(set(items.rows.tolist()))))
    found = [row for row, place in enumerate(places) if place is not None]
    if not found:
        raise MismatchError(
            f"The {items.split} pictures of {layer.get('data') or 'the data set'} are not those of {lineage.cache} any more."
        )
    return found, pictures.batch([(place, None) for place in places if place is not None])


def encoded_by(lineage: Lineage) -> str:
    """The run of fit-ae that the cache was made by."""
    return str((config_of(lineage.cache) if (lineage.cache / "config.yaml").exists() else {}).get("run") or "runs/ae")


def statistics_gap(lineage: Lineage) -> float:
    """How far the run's statistics are from the cache's: the largest difference in the cache's deviations."""
    assert lineage.manifest is not None
    own, theirs = statistics_of(lineage.header), lineage.manifest.statistics
    if len(own.mean) != len(theirs.mean):
        return math.inf
    rows = zip(own.mean, own.deviation, theirs.mean, theirs.deviation, strict=True)
    return max(max(abs(mean - m), abs(deviation - d)) / d for mean, deviation, m, d in rows)


# -- noise -------------------------------------------------------------------


def noise_levels(schedule: Any, count: int = 5) -> list[float]:
    """sigma / alpha of `count` noise levels, evenly in log-SNR, the last near pure noise; within what 50 steps of the schedule visit."""
    _, sigmas = levels(schedule, min(50, getattr(schedule, "timesteps", 50)), "trailing")
    low, high = max(LEVELS[0], float(sigmas[-2])), min(LEVELS[1], float(sigmas[0]))
    return [low * (high / low) ** (index / (count - 1)) for index in range(count)]


def noise_of(latent: Tensor, sigma: float) -> Tensor:
    """Standard normal noise in the shape of a latent, always the same for a level."""
    return torch.randn(latent.shape, generator=generator("cpu", "checkup", "noise", sigma)).to(latent.device)


def estimated(lineage: Lineage, network: Network, items: Items, x: Tensor, sigma: float) -> Tensor:
    """The clean latents [N,c,h,w] float32 that a network finds in x = clean + sigma * noise, knowing the labels."""
    found = []
    for rows in micro_batches(len(x), ESTIMATED_AT_ONCE):
        condition = network.condition(items.labels[rows].to(lineage.engine.device), like=x[rows])
        clean = Denoise(network.voice(twice=True), lineage.schedule, lineage.header["prediction"], condition=condition)
        with lineage.engine.autocast():
            found.append(clean(x[rows], sigma).float())
    return torch.cat(found)


def error_ratio(estimate: Tensor, clean: Tensor, sigma: float) -> float:
    """Mean squared error relative to the best linear guess's from clean + sigma * noise, for clean [B,c,h,w] of deviation 1."""
    return float((estimate - clean).to("cpu", torch.float64).square().mean()) / (sigma**2 / (1 + sigma**2))


# -- earlier weights ---------------------------------------------------------


def initial_weights(lineage: Lineage) -> dict[str, Tensor] | None:
    """What the network was before its first step, built again from the run's seed; None when that is not known."""
    seed = lineage.config.get("loop", {}).get("seed")
    if seed is None:
        return None
    with torch.random.fork_rng(devices=[]):
        order.reseed("weights", seed, "denoiser")
        return build_network(lineage.header).state_dict()


def raw_network(lineage: Lineage) -> Network:
    """The network with the weights that the optimizer holds; a MismatchError where the state has none, or of another step."""
    file, prefix = lineage.folder / "state.safetensors", "diffusion.weights."
    if not file.exists():
        raise MismatchError(f"There is no {file}.")
    step = weights.read_header(file).get("scalars", {}).get("step")
    if step != lineage.header.get("step"):
        raise MismatchError(f"{file} is of step {step}, this model of step {lineage.header.get('step')}.")
    saved, _ = states.load(lineage.folder, lineage.engine) or ({}, {})
    tensors = {name.removeprefix(prefix): whole(value) for name, value in saved.items() if name.startswith(prefix)}
    network = build_network(lineage.header)
    weights.load_into(network, tensors, file)
    return network.to(lineage.engine.device).eval().requires_grad_(False)
