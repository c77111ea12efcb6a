"""What was given and is not used, or may be meant otherwise: sentences for a command to say, and warnings in Python."""

from collections.abc import Iterable
from typing import Any

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.beginning import caveat
from ldmctl.diffusion.labels import unused_labels
from ldmctl.diffusion.shown import doubtful_maps
from ldmctl.diffusion.wanted import unused


def cautions(config: Sample, model: Any, seeds: Iterable[int]) -> list[str]:
    """Sentences on a config for a `Model`, also on a size that it was not trained on."""
    ignored = [unused_labels(config, model.header), unused(config)]
    said = [*ignored, *model.unheard(config), *model.cut_prompts(config), doubtful_maps(config, model, seeds)]
    return [sentence for sentence in (*said, caveat(config, model.header)) if sentence]
