"""What a run that hears words alone is asked for when it is judged: the captions of the real pictures that stand beside its samples."""

from __future__ import annotations

from ldmctl.config.schemas.eval_samples import EvalSamples
from ldmctl.console import Console
from ldmctl.diffusion.model import Model
from ldmctl.diffusion.prompts import hears_words
from ldmctl.errors import DataError
from ldmctl.evaluation.real import Aside
from ldmctl.pictures.batches import Pictures


def unspoken(config: EvalSamples, model: Model) -> bool:
    """Whether a run that hears words is judged by samples that are made without any."""
    return config.prompt is None and hears_words(model.header)


def asked_for_captions(
    config: EvalSamples, model: Model | None, splits: dict[str, Pictures], aside: Aside, console: Console
) -> EvalSamples:
    """The config with these captions as prompts, in turn, where it says nothing of what samples are asked for and the run hears words alone.

    A run that hears classes too is asked for classes as the data has them: a caption of another class would be asked beside them.
    """
    if model is None or config.samples is not None or not unspoken(config, model) or model.header["conditioner"] is not None:
        return config
    if config.label is not None or config.each is not None or config.interpolate is not None or config.guidance == 0:
        return config
    prompts = [
        text for split, rows in (("val", aside.val), ("train", aside.train)) for row in rows if (text := caption(splits[split], row))
    ]
    if not prompts:
        return config
    console.say(
        f"This run hears words: its samples are asked for the captions of the real pictures beside them ({len(prompts):,}), in turn. "
        "prompt=TEXT asks for others, and prompt='' for none."
    )
    return config.model_copy(update={"prompt": prompts})


def caption(pictures: Pictures, row: int) -> str:
    """The first caption of a picture as a prompt that stands for itself; empty where it has none, or cannot be read."""
    try:
        return pictures.note(row)[1].strip().replace("|", "\\|")
    except DataError:
        return ""
