"""What was given and is not used, or may be meant otherwise: sentences for a command to say, and warnings in Python."""

from collections.abc import Iterable
from typing import Any

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.beginning import caveat
from ldmctl.diffusion.cropped import cropped
from ldmctl.diffusion.labels import unused_labels
from ldmctl.diffusion.shown import doubtful_maps
from ldmctl.diffusion.wanted import unused


def cautions(config: Sample, model: Any, seeds: Iterable[int]) -> list[str]:
    """Sentences on a config for a `Model`, also on a size that it was not trained on."""
    ignored = [unused_labels(config, model.header), unused(config)]
    ignored += [*unused_start(config)]
    said = [*ignored, *model.unheard(config), *model.cut_prompts(config), doubtful_maps(config, model, seeds)]
    said += cropped(config, model, seeds)
    return [sentence for sentence in (*said, caveat(config, model.header)) if sentence]


def unused_start(config: Sample) -> list[str]:
    """Sentences on a start that leaves nothing of what else is asked for, or of which nothing is left."""
    if config.start is None:
        return []
    if config.level == 1 and config.mask is None and config.outpaint is None:
        return ["strength=1 makes a fresh sample: nothing of --from is used."]
    asked = {"--guide": config.guide, "--label": config.label, "--prompt": config.prompt, "--guidance": config.guidance != 1}
    if config.level > 0 or not (named := [name for name, given in asked.items() if given]):
        return []
    return [f"strength=0 returns the picture through the autoencoder: {' and '.join(named)} {'are' if named[1:] else 'is'} not used."]
