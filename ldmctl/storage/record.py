"""What a run folder says of itself: run.json, config.yaml, versions, and which weights a name stands for."""

import json
import platform
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ldmctl import registry
from ldmctl.config.documents import read_config
from ldmctl.endings import file_trouble
from ldmctl.errors import MismatchError, PluginWarning

WAYS = "Two ways on: another folder (--out), or start over in this one (--overwrite, its files are deleted)."


def _record(folder: Path) -> dict[str, Any]:
    """What run.json says; a damaged one is a MismatchError."""
    file = folder / "run.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MismatchError(file_trouble(error) or f"{file} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise MismatchError(f"{file} is damaged ({error}). {WAYS}") from None
    if not isinstance(record, dict):
        raise MismatchError(f"{file} is damaged: it holds no object. {WAYS}")
    return record


def versions() -> dict[str, str]:
    """Versions of Python and of the distributions that results depend on."""
    out = {"python": platform.python_version()}
    for name in ("ldmctl", "torch", "numpy", "pillow", "safetensors"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            out[name] = "unknown"
    return out


def describe_plugins(*plugins: Any) -> list[str]:
    """`kind type (distribution version)` of each (kind, config), without those that are None."""
    return [f"{kind} {config.type} ({registry.find(kind, config.type).source})" for kind, config in plugins if config is not None]


def warn_of_others(record: Mapping[str, Any], now: Sequence[str]) -> None:
    """A PluginWarning for each plugin that comes from another version of a package than when the run of this record was begun.

    `now` is what `describe_plugins` says; what comes with ldmctl is not compared.
    """
    old = dict(each.rstrip(")").split(" (", 1) for each in record.get("plugins") or [] if " (" in each)
    for plugin, source in (each.rstrip(")").split(" (", 1) for each in now):
        if (was := old.get(plugin, source)) != source and not (was.startswith("ldmctl ") and source.startswith("ldmctl ")):
            warnings.warn(
                f"The {plugin} was {was}'s when this run was begun, and here it is {source}'s: it may compute something else.",
                PluginWarning,
                stacklevel=2,
            )


def config_of(folder: Path) -> dict[str, Any]:
    """The resolved config of a finished or running run, as plain values."""
    if not (folder / "config.yaml").exists():
        raise MismatchError(f"{folder} is not a run folder: it has no config.yaml.")
    return read_config(folder)


def record_of(folder: Path) -> dict[str, Any]:
    """What run.json says of a run, {} without one."""
    return _record(folder) if (folder / "run.json").exists() else {}


def told_of(file: Path) -> tuple[list[str], list[str]]:
    """(which weights were published and what was done on the way, causes) as fit-ae told of the run that ended with these weights; nothing of
    a snapshot, or of a run that goes on."""
    judged = record_of(file.parent).get("judged") if file.name == "model.safetensors" else None
    run = judged.get("of_run") if isinstance(judged, dict) else None
    told = [run.get(name) if isinstance(run, dict) else None for name in ("notes", "causes")]
    notes, causes = ([str(each) for each in some] if isinstance(some, list) else [] for some in told)
    return notes, causes


def run_of(file: Path) -> Path:
    """The folder of the run that the file of a model lies in, or that of a snapshot."""
    return file.parent.parent if file.parent.name == "snapshots" else file.parent


def model_file(run: str, *, verb: str) -> Path:
    """The weights that `--run runs/ae`, `runs/ae@10000` or `runs/ae@best` names, or a MismatchError that says what there is."""
    name, _, snapshot = run.rpartition("@") if "@" in Path(run).name else (run, "", "")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise MismatchError(f"There is no run folder {folder}. `ldmctl {verb} --out {folder}` makes one, --run names another.")
    file = folder / "model.safetensors"
    if snapshot:
        file = folder / "snapshots" / (f"{int(snapshot):09d}.safetensors" if snapshot.isdecimal() else f"{snapshot}.safetensors")
    if not file.exists():
        there = sorted(path.stem for path in (folder / "snapshots").glob("*.safetensors"))
        raise MismatchError(
            f"{folder} has no {file.relative_to(folder)}. "
            + (f"Snapshots: {', '.join(there)}." if snapshot else f"Has `ldmctl {verb}` been run to its first save?")
        )
    return file
