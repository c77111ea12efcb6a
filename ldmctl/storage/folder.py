"""Which files in a run folder are ldmctl's, and which folders it may write to."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ldmctl.config.documents import Raw, read_config
from ldmctl.endings import may
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.storage.record import _record

OWN = (
    "config.yaml",
    "metrics.jsonl",
    "state.safetensors",
    "model.safetensors",
    "autoencoder.safetensors",
    "bad_images.jsonl",
    "metrics.csv",
    "wandb.json",
    "latents.json",
    "run.json",
)
STEP = "[0-9]" * 9
OWN_PATTERNS = (
    f"samples/{STEP}.png",
    "samples/latents.png",
    "samples/verdict.png",
    f"snapshots/{STEP}.safetensors",
    "snapshots/best.safetensors",
    "snapshots/ema-[0-9]*.safetensors",
    f"averages/{STEP}-*.safetensors",
    "train-[0-9]*.safetensors",  # of a cache
    "val-[0-9]*.safetensors",
    "train-[0-9]*.items.jsonl",
    "val-[0-9]*.items.jsonl",
    "state-[0-9]*-of-[0-9]*.safetensors",
    *(f"text-encoder/*{ending}" for ending in (".json", ".txt", ".model", ".safetensors", ".bin")),
)
UNFINISHED = re.compile(r"\..+\.\d+\.(tmp|part)|\.metrics\.csv\.tmp|\.tmp\w{6}")  # of a process that was killed while it wrote
EVENTS = re.compile(r"events\.out\.tfevents\.\d+\..+")  # what the tracker tensorboard writes
PARTS = (".", "samples", "snapshots", "averages", "text-encoder")
KEYS = {"fit-diffusion": "latents", "encode-dataset": "shard", "fit-ae": "autoencoder"}  # in the config.yaml of each verb alone


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
    if not may(folder, os.W_OK | os.X_OK):
        raise MismatchError(f"The folder {folder} may not be written to. Name another --out.")


def verb_of(folder: Path) -> str | None:
    """The verb whose run lies in a folder: as run.json says or, where that is damaged, as the keys of config.yaml do; None without either."""
    if not (folder / "run.json").exists():
        return None
    with suppress(LdmctlError):
        if isinstance(verb := _record(folder).get("verb"), str):
            return verb
    config = _config(folder)
    return next((verb for verb, key in KEYS.items() if key in config), None)


def start_over(folder: Path, verb: str, say: Callable[[str], None]) -> None:
    """Delete the run of this verb in a folder; any other is a MismatchError, whatever --overwrite says."""
    if (folder / "run.json").exists() and (there := verb_of(folder)) != verb:
        what = f"a run of {there}" if there else "a run whose verb cannot be made out (its run.json is damaged)"
        raise MismatchError(
            f"{folder} holds {what}, and --overwrite deletes only one of {verb}. Name another --out, or delete the folder yourself if nothing needs it."
        )
    if gone := what_goes(folder):
        say(gone)
    _clear(folder)


def sweep(folder: Path) -> None:
    """Delete what commands that were killed have left half written."""
    for file in _unfinished(folder):
        file.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Delete what ldmctl wrote into a run folder, and nothing else: the state first, which names others, and run.json, by which it is known, last."""
    (folder / "state.safetensors").unlink(missing_ok=True)
    for file in _own(folder):
        file.unlink(missing_ok=True)


def _own(folder: Path) -> list[Path]:
    """What ldmctl wrote into a run folder, run.json last; what a linked folder leads to is not in it."""
    patterns = [pattern for pattern in OWN_PATTERNS if "/" not in pattern or not (folder / pattern.split("/")[0]).is_symlink()]
    found = [file for pattern in patterns for file in folder.glob(pattern)]
    named = [file for name in OWN if os.path.lexists(file := folder / name)]
    return [*found, *_unfinished(folder), *_events(folder), *named]


def _unfinished(folder: Path) -> Iterator[Path]:
    for part in PARTS:
        place = folder / part
        if place.is_dir() and not place.is_symlink():
            yield from (entry for entry in place.iterdir() if UNFINISHED.fullmatch(entry.name) and not entry.is_dir())


def _events(folder: Path) -> Iterator[Path]:
    """Event files of TensorBoard that the run wrote into its folder, where its config says or where it does by default."""
    tracker = _config(folder).get("tracker")
    told = tracker.get("folder") if isinstance(tracker, dict) and tracker.get("type") == "tensorboard" else None
    home = folder.resolve()
    for place in {(home / str(name)).resolve() for name in ("tensorboard", told or "tensorboard")}:
        if place.is_relative_to(home) and place.is_dir():
            yield from (entry for entry in place.iterdir() if EVENTS.fullmatch(entry.name) and entry.is_file())


def _config(folder: Path) -> Raw:
    try:
        return read_config(folder) if (folder / "config.yaml").exists() else {}
    except (LdmctlError, OSError):
        return {}


def what_goes(folder: Path) -> str:
    """A sentence on what --overwrite deletes: the run, how far it was, how many files and bytes; '' when there is nothing."""
    files = _own(folder)
    if not any(file.name == "run.json" for file in files):
        return ""
    with suppress(LdmctlError):
        record = _record(folder)
        step = record.get("step")
        done = "" if not isinstance(step, int) else f", {step:,} {'shards' if record.get('verb') == 'encode-dataset' else 'steps'}"
        size = sum(file.lstat().st_size for file in files)
        return f"--overwrite deletes the {record.get('verb')} run in {folder}{done}: {len(files):,} files, {size / 2**20:,.1f} MiB."
    return f"--overwrite deletes the damaged run in {folder}: {len(files):,} files."
