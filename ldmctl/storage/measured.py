"""Since when a run's validation losses are made as they are now: those before are other numbers, and no best among them counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MADE_OF = {"losses.pixel", "losses.pixel_weight", "losses.perceptual_weight", "losses.shares"}


def measured_by(key: str) -> bool:
    """Whether the validation loss is made otherwise where this key changes."""
    return key in MADE_OF or key.startswith("losses.shares.")


def measured_since(record: Mapping[str, Any]) -> int:
    """The step of the last change, in a run.json that may be damaged; 0 without one."""
    told = record.get("changes")
    changes = [each for each in told if isinstance(each, Mapping)] if isinstance(told, list) else []
    return max((each["step"] for each in changes if type(each.get("step")) is int and measured_by(str(each.get("key")))), default=0)
