"""The chapter of a cache of latents."""

from __future__ import annotations

from pathlib import Path

from ldmctl.config.differences import flatten
from ldmctl.console import duration
from ldmctl.errors import LdmctlError
from ldmctl.evaluation.report.parts import Chapter, Sheet, listed, written
from ldmctl.evaluation.report.training import ENDS, LONG, TITLES, keys
from ldmctl.latents import manifest as manifests
from ldmctl.latents.manifest import Manifest
from ldmctl.storage.runs import Look, size_of, word


def cache(look: Look) -> Chapter:
    """What a cache says of itself, in run.json and latents.json."""
    chapter = Chapter(TITLES["encode-dataset"], str(look.folder), "", look.state, troubles=list(look.troubles))
    chapter.fact("command", word(look.record.get("command")))
    chapter.fact("started", word(look.record.get("started")))
    chapter.fact("time", None if look.seconds is None else duration(look.seconds))
    chapter.fact("disk", f"{size_of(look.folder) / 2**20:,.1f} MiB")
    chapter.fact("made from", word(look.record.get("parent")))
    try:
        told(chapter, manifests.read(look.folder))
    except LdmctlError as error:
        chapter.lead = f"A cache of latents. {ENDS.get(look.state, '')}".strip()
        chapter.troubles.append(str(error))
    chapter.config = keys(look)
    chapter.repeat = [each for each in [word(look.record.get("command"))] if each]
    return chapter


def told(chapter: Chapter, manifest: Manifest) -> None:
    """What latents.json has."""
    counts = ", ".join(f"{manifest.count(split):,} {split}" for split in manifest.splits)
    chapter.lead = f"Latents {' x '.join(map(str, manifest.latent))} of {counts} pictures of {manifest.data}."
    chapter.fact("stored as", manifest.stored)
    chapter.fact("mirrored variants", "each item also mirrored" if manifest.flipped else "none")
    measured = manifest.measured or manifest.statistics
    chapter.fact("mean", listed(manifest.statistics.mean))
    chapter.fact("standard deviation", listed(manifest.statistics.deviation))
    chapter.fact("drift since they were frozen", f"{manifests.drift(manifest.statistics, measured):.2%} of a standard deviation")
    chapter.fact("unreadable pictures left out", sum(map(len, manifest.skipped.values())) or None)
    chapter.fact(
        "prepared",
        ", ".join(f"{key}={written(value)}" for key, value in flatten(manifest.preparation) if not key.startswith("autoencoder.")),
    )
    chapter.fact("fingerprint", manifest.fingerprint[:LONG])
    chapter.fact("fingerprint of the autoencoder", f"{manifest.autoencoder['type']} {manifest.autoencoder['fingerprint'][:LONG]}")
    if manifest.classes:
        rows = [[name, f"{count:,}"] for name, count in zip(manifest.classes, manifest.label_counts, strict=False)]
        chapter.sheets.append(Sheet("Classes of the training pictures", ["class", "pictures"], rows, folded=len(rows) > 20))


def fingerprint(folder: Path) -> str | None:
    """By what a cache is known; None where that cannot be read."""
    try:
        return manifests.read(folder).fingerprint
    except LdmctlError:
        return None
