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
    if (label := config.conditions.label) is not None and not sum(manifest.label_counts):
        raise ConfigError(f"conditions.label={label.type} has nothing to listen to: {cache} has no labels. Take conditions.label=null.")
    return manifest


def of_cache(manifest: Manifest, maps: str | None = None) -> dict[str, Any]:
    """What a run remembers of the cache that it is fitted to: which items, how many, in which latent space, and the digest of their maps."""
    held_out = [[shard.sha256, shard.items_sha256] for shard in manifest.splits.get("val", [])]
    space = json.dumps([manifest.autoencoder, manifest.image, manifest.classes], sort_keys=True)
    return {
        "cache": manifest.fingerprint,
        "cache_contents": manifest.contents,
        "cache_items": {split: manifest.count(split) for split in manifest.splits},
        "cache_held_out": hashlib.sha256(json.dumps(held_out).encode()).hexdigest(),
        "latent_space": hashlib.sha256(space.encode()).hexdigest(),
        "latent_statistics": manifest.statistics.model_dump(),
        **({} if maps is None else {"maps": maps}),
    }


def changes_of_cache(
    record: dict[str, Any], manifest: Manifest, maps: str | None, folder: Path, *, accepted: bool
) -> list[tuple[str, Any, Any]]:
    """(what, before, now) of each part of its data that a run continues with otherwise; a MismatchError unless that is `accepted` and fits."""
    found: list[tuple[str, Any, Any]] = []
    if check_same_cache(record, manifest, folder, accepted=accepted):
        found.append(("cache", record["cache"], manifest.fingerprint))
        if (had := record.get("cache_held_out")) != (has := of_cache(manifest)["cache_held_out"]):
            found.append(("cache.val", had, has))
    if check_same_maps(record, maps, folder, accepted=accepted):
        found.append(("maps", record["maps"], maps))
    return found


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
    changed = f"The cache has changed since {folder} was started: {'encoded again.' if same else what_changed(record, now)}"
    if other or moved > MOVED:
        what = "autoencoder, preparation or classes are others" if other else f"statistics have moved by up to {moved:.2%} of a deviation"
        raise MismatchError(f"{changed} Its {what}, so what was learned does not fit. Start over: --out another folder, or --overwrite.")
    if not accepted:
        raise MismatchError(
            f"{changed} Continue with what it holds now: --accept-data. Or start over: --out another folder, or --overwrite."
        )
    return True


def check_same_maps(record: dict[str, Any], maps: str | None, folder: Path, *, accepted: bool) -> bool:
    """Whether a run began with other maps, known by their digest, and continues with these, which must be `accepted`: else a MismatchError."""
    if maps is None or record.get("maps") in (None, maps):
        return False
    if not accepted:
        raise MismatchError(
            f"The maps of the pictures have changed since {folder} was started. Continue with what there is now: --accept-data. Or start over: "
            "--out another folder, or --overwrite."
        )
    return True


def what_changed(record: dict[str, Any], now: dict[str, Any]) -> str:
    """How the items of a cache differ from those that a run recorded: `it had ..., now it has ...`, or which of their parts."""
    before = record.get("cache_items", {})
    counts = [f"{items.get('train', 0):,} training and {items.get('val', 0):,} held-out latents" for items in (before, now["cache_items"])]
    if counts[0] != counts[1]:
        return f"it had {counts[0]}, now it has {counts[1]}."
    had, has = record.get("cache_contents") or {}, now["cache_contents"]
    if not had or not has:
        return f"it has {counts[1]}, as it had, but some of its pictures, labels or captions are others."
    if had["pictures"] != has["pictures"]:
        return f"it has {counts[1]}, as it had, but not of the same pictures: some were replaced, renamed, edited or copied."
    parts = [name for name in ("labels", "captions") if had[name] != has[name]]
    if not parts:
        return f"it has the same {counts[1]} with the same labels and captions, but in another order."
    return f"it has the same {counts[1]}, but some of their {' and '.join(parts)} are others."
