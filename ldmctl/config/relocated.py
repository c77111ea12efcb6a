"""Paths that a run has recorded, once the folder that holds both the run and what they lead to was copied or moved as a whole.

Such a copy is known by where the run lay when it wrote them: what stands to the run now as it did then is what is meant.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmctl.config.differences import PLACES
from ldmctl.config.documents import Raw
from ldmctl.errors import RelocatedWarning

FOLDER = "folder"  # in run.json: where the run lay


def relocated(run: Path, raw: Mapping[str, Any]) -> Raw:
    """The pictures of a run's config (`data`, `dataset`), at their places beside it where it was copied or moved together with them.

    A RelocatedWarning says which folder is read then.
    """
    out = dict(raw)
    if isinstance(out.get("data"), str):
        out["data"] = beside(run, out["data"])
    if isinstance(dataset := out.get("dataset"), dict):
        places = {key: value for key, value in dataset.items() if key in PLACES}
        out["dataset"] = {**dataset, **{key: _each(run, value) for key, value in places.items()}}
        for key, value in places.items():
            if (now := out["dataset"][key]) != value:
                warnings.warn(
                    f"{run} was copied or moved together with its pictures: they are read from {_listed(now)}, not from {_listed(value)}.",
                    RelocatedWarning,
                    stacklevel=2,
                )
    return out


def beside(run: Path, recorded: str) -> str:
    """The path that stands to a run as the recorded one did when the run wrote it, where something else is there; else the recorded one."""
    before, now = _lay(run), Path(os.path.realpath(run))
    if not os.path.isabs(recorded) or before is None or before == now:
        return recorded
    for path in dict.fromkeys((recorded, os.path.realpath(recorded))):
        try:
            root = Path(os.path.commonpath([before, path]))
        except ValueError:  # on different drives
            continue
        tail = before.relative_to(root).parts
        if not tail or now.parts[-len(tail) :] != tail:
            continue
        place = Path(*now.parts[: -len(tail)], os.path.relpath(path, root))
        if place.exists() and not (os.path.exists(recorded) and os.path.samefile(place, recorded)):
            return str(place)
    return recorded


def _each(run: Path, value: Any) -> Any:
    return [_each(run, each) for each in value] if isinstance(value, list) else beside(run, value) if isinstance(value, str) else value


def _lay(run: Path) -> Path | None:
    """Where a run lay when it wrote its config; None where it does not say."""
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    folder = record.get(FOLDER) if isinstance(record, dict) else None
    return Path(folder) if isinstance(folder, str) and os.path.isabs(folder) else None


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
