"""Safetensors files whose header alone rebuilds the model, and writes that are whole or not there.

The header holds kind, plugin type, distribution, config and context, as one JSON
text; no times and no paths, so equal models are equal bytes.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.config.mapped import opened
from ldmctl.config.provenance import how_to_get
from ldmctl.config.resolve import plugin_config
from ldmctl.endings import why_not_read
from ldmctl.errors import MismatchError, PluginError, PluginWarning, one_line
from ldmctl.storage.atomic import replacing, write_text  # noqa: F401  (the second one is here for those who write weights and texts)

FORMAT = 1
SPARE = 1 << 24  # numbers that a network may have beside those of its file, before it counts as another


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header in one atomic file."""
    ready = {name: value.detach().to("cpu", copy=False).contiguous() for name, value in tensors.items()}
    seen: dict[int, str] = {}
    for name, value in ready.items():  # two names for one storage: the format wants each its own
        if value.numel() and seen.setdefault(value.data_ptr(), name) != name:
            ready[name] = value.clone()
    with replacing(path) as temporary:
        safetensors.torch.save_file(ready, str(temporary), metadata={"ldmctl": json.dumps({"format": FORMAT, **header}, sort_keys=True)})


def load(path: Path, *, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, header) of a file that `save` wrote; anything else is a MismatchError."""
    try:
        with opened(path, device=device) as file:
            header = _header(path, file.metadata())
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise MismatchError(why_not_read(path, error)) from None


def names(path: Path) -> list[str]:
    """What its tensors are called."""
    try:
        with opened(path) as file:
            return list(file.keys())
    except (OSError, safetensors.SafetensorError) as error:
        raise MismatchError(why_not_read(path, error)) from None


def read_header(path: Path) -> dict[str, Any]:
    """The header alone."""
    try:
        with opened(path) as file:
            return _header(path, file.metadata())
    except (OSError, safetensors.SafetensorError) as error:
        raise MismatchError(why_not_read(path, error)) from None


def _header(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    try:
        header = json.loads((metadata or {}).get("ldmctl", "{}"))
    except (ValueError, RecursionError) as error:
        raise MismatchError(f"{path} is damaged: its header cannot be read ({error}).") from None
    if not isinstance(header, dict) or header.get("format", 0) != FORMAT:
        raise MismatchError(f"{path} was not written by ldmctl, or by a version whose format is not {FORMAT}.")
    return header


def describe(kind: str, config: Any, **context: Any) -> dict[str, Any]:
    """What it takes to build a plugin again: kind, type, distribution, config, context."""
    plugin = registry.find(kind, config.type)
    return {"kind": kind, "type": config.type, "distribution": plugin.source, "config": config.model_dump(mode="json"), "context": context}


def rebuild(description: Mapping[str, Any]) -> Any:
    """The plugin that `describe` described, without its weights."""
    kind, config, recorded = description["kind"], dict(description["config"]), str(description.get("distribution", ""))
    config["type"] = registry.word_for(found_again(kind, config["type"], recorded))
    return registry.build(kind, plugin_config(kind, config), **description["context"])


def refuse_oversized(description: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    """A MismatchError if the header describes what is no network, or one of far more numbers than the file holds: before memory is taken for it."""
    if not str(description.get("distribution", "")).startswith("ldmctl "):
        return  # a constructor of others may read files
    try:
        with torch.device("meta"):
            described = sum(value.numel() for value in rebuild(description).state_dict().values())
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise MismatchError(
            f"{path} is damaged: its header describes what is no {description['kind']} ({one_line(error)[:160]})."
        ) from None
    held = sum(value.numel() for value in tensors.values())
    if described > 2 * held + SPARE:
        raise MismatchError(f"{path} does not fit the network that its header describes, of {described:,} numbers: it holds {held:,}.")


def found_again(kind: str, name: str, recorded: str) -> registry.Plugin:
    """The plugin that a file was written with, by the package `recorded` in it ("name version"); another version or package is a warning."""
    try:
        plugin = registry.find(kind, name, recorded=recorded)
    except PluginError as error:
        raise PluginError(f"{error} {how_to_get(recorded)}" if recorded else str(error)) from None
    if plugin.source != recorded and recorded and not (plugin.built_in and recorded.startswith("ldmctl ")):
        warnings.warn(
            f"The {kind} {name!r} was {recorded}'s when this was made, and here it is {plugin.source}'s: it may compute something else.",
            PluginWarning,
            stacklevel=2,
        )
    return plugin


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Strictly: every weight must be there and fit, or it is a MismatchError."""
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise MismatchError(f"{path} does not fit the network that its header describes: {' '.join(str(error).split())[:300]}") from None


def fingerprint(tensors: Mapping[str, Tensor], config: Any) -> str:
    """SHA-256 over sorted (name, dtype, shape, bytes) and the config, hexadecimal."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
