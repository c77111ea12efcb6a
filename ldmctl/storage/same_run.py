"""Whether a folder holds the run that a command would continue, or another one."""

import json
from pathlib import Path
from typing import Any

from ldmctl.config.base import Config
from ldmctl.config.differences import fixed_differences
from ldmctl.config.documents import read_config
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.errors import MismatchError
from ldmctl.storage import changes as changing
from ldmctl.storage.folder import _clear
from ldmctl.storage.record import WAYS, _record


def _refuse_other(folder: Path, config: Config) -> bool:
    """Whether there is a run to resume; one with another config is a MismatchError that names the keys."""
    if (folder / "state.safetensors").exists() and not (folder / "config.yaml").exists():
        raise MismatchError(
            f"{folder} holds a run whose config.yaml is gone, so it cannot be checked that this command belongs to it. {WAYS}"
        )
    if not (folder / "run.json").exists() or not (folder / "config.yaml").exists():
        return False
    record = _record(folder)
    if record.get("verb") != _verb(config):
        raise MismatchError(f"{folder} holds a run of {record.get('verb')}, not of {_verb(config)}. Name another --out.")
    old = read_config(folder)
    differences = fixed_differences(VERBS[_verb(config)], old, config.model_dump(mode="json"))
    if (
        "begun_with" not in record and old.get("init") is None and (init := getattr(config, "init", None)) is not None
    ):  # which a run that continues would not take
        differences.append(("init", None, init))
    if differences and _holds_nothing(folder, record):
        _clear(folder)
        return False
    if differences:
        rows = [f"  {path}: {_short(before)} there, {_short(after)} asked for" for path, before, after in differences[:12]]
        raise MismatchError(f"{folder} holds a run with another config:\n" + "\n".join(rows) + f"\n{WAYS}")
    _refuse_fewer_steps(folder, config)
    return True


def _holds_nothing(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the run ended before its first save, so that another config costs nothing."""
    return (
        "step" not in record
        and record.get("status") != "finished"
        and not any((folder / name).exists() for name in ("state.safetensors", "model.safetensors", "latents.json"))
    )


def _verb(config: Config) -> str:
    return config.verb  # type: ignore[attr-defined,no-any-return]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _refuse_fewer_steps(folder: Path, config: Config) -> None:
    done, asked = changing.step_of_state(folder), getattr(getattr(config, "loop", None), "steps", None)
    if done is not None and asked is not None and asked < done:
        raise MismatchError(
            f"{folder} has made {done:,} steps already and loop.steps={asked} asks for fewer, so nothing was done. Its model is that of step "
            f"{done:,}. Take loop.steps={done} or more to keep or continue it; {WAYS[0].lower()}{WAYS[1:]}"
        )
