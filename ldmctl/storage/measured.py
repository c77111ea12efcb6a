"""Since when a run's validation losses are of what they are of now: those before are other numbers, and no best among them counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MADE_OF = {"losses.pixel", "losses.pixel_weight", "losses.perceptual_weight", "losses.shares"}
SHOWN = {"pictures.val", "cache.val", "maps"}  # what is held out, under the names that a change of it is noted by


def measured_otherwise(change: Mapping[str, Any]) -> bool:
    """Whether the validation loss is another number from this change of a run on."""
    key = str(change.get("key"))
    if key == "drop":  # a denoiser is validated with its conditions, or without any where it never hears one
        return (change.get("from") == 1) != (change.get("to") == 1)
    return key in MADE_OF or key.startswith("losses.shares.") or shows_others(change)


def shows_others(change: Mapping[str, Any]) -> bool:
    """Whether other pictures, latents or maps are held out from this change on."""
    return str(change.get("key")) in SHOWN


def last_step(record: Mapping[str, Any], counts: Callable[[Mapping[str, Any]], bool]) -> int | None:
    """The step of the last change that counts, in a run.json that may be damaged; None without one."""
    told = record.get("changes")
    changes = [each for each in told if isinstance(each, Mapping)] if isinstance(told, list) else []
    return max((each["step"] for each in changes if type(each.get("step")) is int and counts(each)), default=None)


def measured_since(record: Mapping[str, Any]) -> int:
    """The step after which validation losses may be compared with the last one; 0 where all may."""
    return last_step(record, measured_otherwise) or 0
