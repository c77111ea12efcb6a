"""A finished cache against its checksums (`encode-dataset --verify`)."""

from pathlib import Path
from typing import Any

from ldmctl.console import Console
from ldmctl.errors import MismatchError
from ldmctl.latents import integrity, prepared
from ldmctl.latents import manifest as manifests
from ldmctl.latents.codec import autoencoder_fingerprint
from ldmctl.latents.inventory import folders
from ldmctl.latents.items import AGAIN


def verify_cache(folder: str | Path, *, console: Console) -> dict[str, Any]:
    """Read every file of a finished cache and compare it with its hash; a MismatchError says what is wrong. Needs no pictures."""
    place = Path(folder).expanduser()
    manifest = manifests.read(place)
    wrong = list(integrity.faults(place, manifest))
    file = place / "autoencoder.safetensors"
    try:
        if autoencoder_fingerprint(file) != manifest.autoencoder["fingerprint"]:
            wrong.append(f"{file} is not the autoencoder that made the latents.")
    except (MismatchError, LookupError) as error:
        wrong.append(str(error) if isinstance(error, MismatchError) else f"{file} is damaged: its header lacks {error}.")
    again = f"\n{AGAIN}" * bool(wrong)
    conditions = [file for folder in folders(place) for file in prepared.shards_in(folder)]
    wrong += filter(None, map(prepared.fault, conditions))
    if wrong:
        raise MismatchError("\n  ".join([f"{place} is not as it was written:", *wrong]) + again)
    counts = {split: manifest.count(split) for split in manifest.splits}
    files = sum(len(row) for row in manifest.splits.values())
    kept = f", and {len(conditions)} of what conditioners have made" if conditions else ""
    console.say(f"{place} is whole: {', '.join(f'{count:,} {split}' for split, count in counts.items())} in {files} shards{kept}.")
    return {"cache": str(place), "items": counts, "shards": files, "conditions": len(conditions), "whole": True}
