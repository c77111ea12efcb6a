"""ldmctl cache: what a cache of latents holds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ldmctl.cli import conditions
from ldmctl.cli.options import Json, print_json
from ldmctl.cli.output import put
from ldmctl.config.differences import flatten
from ldmctl.latents import manifest as manifests
from ldmctl.latents.manifest import Manifest, Statistics

app = typer.Typer(no_args_is_help=True, help="Look at a cache of latents.")
CLASSES = 20  # said by name at most


@app.command()
def info(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A cache that encode-dataset wrote.")] = Path("cache"), json: Json = False
) -> None:
    """Items, shapes, size on disk, codes in use, classes, statistics and their drift, what made the latents, and captions and maps."""
    from ldmctl.latents.inventory import inventory

    place = folder.expanduser()
    manifest = manifests.read(place)
    found = describe(place, manifest) | inventory(place, manifest)
    if json:
        print_json(found)
        return
    for name, value in [*lines(found), *conditions.lines(found)]:
        put(f"{name:12} {value}")


def describe(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """What there is to know of a finished cache, from latents.json and the sizes of its files."""
    measured = manifest.measured or manifest.statistics
    files = [folder / name for row in manifest.splits.values() for shard in row for name in (shard.file, shard.items_file)]
    return {
        "cache": str(folder),
        "items": {split: manifest.count(split) for split in manifest.splits},
        "skipped": {split: len(stamps) for split, stamps in manifest.skipped.items()},
        "shards": {split: len(row) for split, row in manifest.splits.items()},
        "moments": list(manifest.moments),
        "latent": list(manifest.latent),
        "store": manifest.store,
        "dtype": manifest.dtype,
        "codes": manifest.codes and manifest.codes.model_dump(),
        "bytes_per_item": manifest.item_bytes,
        "stored": manifest.stored,
        "flipped": manifest.flipped,
        "bytes": sum(file.stat().st_size for file in files if file.exists()),
        "missing": [file.name for file in files if not file.exists()],
        "classes": dict(zip(manifest.classes, manifest.label_counts, strict=True)),
        "statistics": manifest.statistics.model_dump(),
        "measured": measured.model_dump(),
        "drift": manifests.drift(manifest.statistics, measured),
        "autoencoder": manifest.autoencoder,
        "data": manifest.data,
        "preparation": manifest.preparation,
        "fingerprint": manifest.fingerprint,
    }


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, words) of each line that a person reads."""
    skipped = sum(found["skipped"].values())
    counts = ", ".join(f"{count:,} {split}" for split, count in found["items"].items())
    return [
        ("items", counts + (f" ({skipped} unreadable pictures left out)" if skipped else "")),
        ("latent", f"{by(found['latent'])}, stored as {found['stored']}"),
        ("flipped", "each item also mirrored" if found["flipped"] else "no mirrored variants"),
        ("disk", f"{found['bytes'] / 2**20:,.1f} MiB in {sum(found['shards'].values())} shards"),
        *([("missing", ", ".join(found["missing"]))] if found["missing"] else []),
        ("classes", named(found["classes"])),
        ("statistics", numbers(Statistics(**found["statistics"]))),
        ("measured", f"{numbers(Statistics(**found['measured']))}; drift {found['drift']:.2%} of a standard deviation"),
        ("autoencoder", f"{found['autoencoder'].get('type')} {str(found['autoencoder'].get('fingerprint'))[:12]}"),
        ("data", str(found["data"])),
        ("prepared", ", ".join(f"{key}={value}" for key, value in flatten(found["preparation"]) if not key.startswith("autoencoder."))),
    ]


def by(shape: list[int]) -> str:
    """`4 x 32 x 32`."""
    return " x ".join(str(side) for side in shape)


def named(classes: dict[str, int]) -> str:
    """Classes with their counts, the first ones when there are many."""
    if not classes:
        return "none"
    more = f", ... ({len(classes):,} in all)" if len(classes) > CLASSES else ""
    return ", ".join(f"{name} {count:,}" for name, count in list(classes.items())[:CLASSES]) + more


def numbers(statistics: Statistics) -> str:
    """Mean and standard deviation of the first channels."""
    shown = [
        f"{values[0]:.4g}" if len(set(values)) == 1 else " ".join(f"{value:.4g}" for value in values[:8])
        for values in vars(statistics).values()
    ]
    return f"mean {shown[0]}, standard deviation {shown[1]}"
