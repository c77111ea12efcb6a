"""Which files in a run folder are ldmctl's, and which folders it may write to."""

import os
from pathlib import Path

from ldmctl.errors import MismatchError

OWN = (
    "config.yaml",
    "metrics.jsonl",
    "state.safetensors",
    "model.safetensors",
    "autoencoder.safetensors",
    "bad_images.jsonl",
    "metrics.csv",
    "wandb.json",
    "run.json",
)
OWN_PATTERNS = (
    "samples/*.png",
    "snapshots/*.safetensors",
    "averages/*.safetensors",
    "latents.json",
    "*-[0-9]*.safetensors",  # of a cache, and of a sharded state
    "*-[0-9]*.items.jsonl",
    ".*.tmp",  # of a process that was killed while it wrote
)


def _refuse_foreign(folder: Path) -> None:
    if folder.is_dir() and not (folder / "run.json").exists():
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if others:
            raise MismatchError(
                f"{folder} is not a run folder and holds other things ({', '.join(sorted(others)[:3])}). Name another --out."
            )


def make_folder(folder: Path) -> None:
    """Make the folder that --out names, or say in a MismatchError why that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise MismatchError(f"{folder} is a file; --out wants a folder.") from None
    except OSError as error:
        raise MismatchError(f"The folder {folder} cannot be made: {error.strerror}. Name another --out.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MismatchError(f"The folder {folder} may not be written to. Name another --out.")


def _clear(folder: Path) -> None:
    """Delete what ldmctl wrote into a run folder, and nothing else: the state first, which names others, and run.json, by which it is known, last."""
    (folder / "state.safetensors").unlink(missing_ok=True)
    for file in [*(file for pattern in OWN_PATTERNS for file in folder.glob(pattern)), *(folder / name for name in OWN)]:
        file.unlink(missing_ok=True)
