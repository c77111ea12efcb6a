"""Which cache of latents a run of fit-diffusion is fitted to, and whether it is still that one."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.latents import manifest as manifests
from ldmctl.latents.codec import autoencoder_fingerprint
from ldmctl.latents.items import AGAIN
from ldmctl.latents.manifest import Manifest, Statistics, drift

MOVED = 1e-3  # deviations: what another machine may measure of the same pictures


def check_cache(config: FitDiffusion, cache: Path) -> Manifest:
    """The manifest of a cache that this config can train on; otherwise a MismatchError or ConfigError."""
    manifest = manifests.read(cache)
    if not manifest.count("train"):
        raise MismatchError(f"{cache} has no training latents.")
    if autoencoder_fingerprint(cache / "autoencoder.safetensors") != manifest.autoencoder["fingerprint"]:
        raise MismatchError(f"{cache / 'autoencoder.safetensors'} is not the autoencoder that made the latents beside it. {AGAIN}")
    if config.flip and not manifest.flipped:
        raise ConfigError(f"flip=true, but {cache} holds no mirrored variants. Encode them: ldmctl encode-dataset flip=true --overwrite.")
    if config.conditioner is not None and not sum(manifest.label_counts):
        raise ConfigError(f"conditioner={config.conditioner.type} has nothing to listen to: {cache} has no labels. Take conditioner=null.")
    return manifest


def of_cache(manifest: Manifest) -> dict[str, Any]:
    """What a run remembers of the cache that it is fitted to: which items, how many, and in which latent space."""
    space = json.dumps([manifest.autoencoder, manifest.image, manifest.classes], sort_keys=True)
    return {
        "cache": manifest.fingerprint,
        "cache_items": {split: manifest.count(split) for split in manifest.splits},
        "latent_space": hashlib.sha256(space.encode()).hexdigest(),
        "latent_statistics": manifest.statistics.model_dump(),
    }


def check_same_cache(record: dict[str, Any], manifest: Manifest, folder: Path, *, accepted: bool) -> bool:
    """Whether a run began on other latents and continues on these, which must be `accepted` and of the same space: else a MismatchError."""
    now = of_cache(manifest)
    if record.get("cache") is None:
        return False
    same, known = record["cache"] == now["cache"], "latent_space" in record
    other = known and record["latent_space"] != now["latent_space"]
    moved = drift(Statistics(**record["latent_statistics"]), manifest.statistics) if known and not other else 0.0
    if same and not other and moved <= MOVED:
        return False
    counts = [
        f"{items.get('train', 0):,} training and {items.get('val', 0):,} held-out latents"
        for items in (record.get("cache_items", {}), now["cache_items"])
    ]
    changed = f"The cache has changed since {folder} was started: " + (
        "encoded again."
        if same
        else f"it holds {counts[0]} as before, but some pictures, labels or captions are others."
        if counts[0] == counts[1]
        else f"it had {counts[0]}, now it has {counts[1]}."
    )
    if other or moved > MOVED:
        what = "autoencoder, preparation or classes are others" if other else f"statistics have moved by up to {moved:.2%} of a deviation"
        raise MismatchError(f"{changed} Its {what}, so what was learned does not fit. Start over: --out another folder, or --overwrite.")
    if not accepted:
        raise MismatchError(
            f"{changed} Continue with what it holds now: --accept-data. Or start over: --out another folder, or --overwrite."
        )
    return True
