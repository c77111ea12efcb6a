"""Maps and pictures that samples are made by, opened and prepared as those were that the model learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ldmctl.config.schemas.sample import Sample
from ldmctl.errors import ConfigError
from ldmctl.latents.conditions import Known

SAID = {"map": "maps", "picture": "pictures"}


def shown_of(config: Sample, given: Any, model: Any, seeds: Sequence[int], sides: tuple[int, int]) -> dict[str, Known]:
    """What a batch of these seeds is shown, by slot."""
    return {}


def refuse_unseen(config: Sample, header: dict[str, Any]) -> None:
    """A ConfigError for a map or a picture that the model does not look at."""
    for slot, what in SAID.items():
        if getattr(config, slot) is not None and slot not in header.get("conditions", {}):
            raise ConfigError(f"This model was trained without {what}, so --{slot} has nothing to show to it. Leave it away.")
