"""Which keys of `ldmctl sample` travel in the text of a picture: all that change its pixels. Readable without torch.

A key added later is written only where it is not what pictures made before it had, so that those still count as made.
"""

from typing import Any

from pydantic_core import to_jsonable_python

from ldmctl.config.base import value_before
from ldmctl.config.schemas.sample import Sample

ALWAYS = ("sampler", "steps", "spacing", "guidance", "batch")  # in the text of every picture
BESIDE = {  # where things are, how many there are and what each is of: the text says model, decoder, seed, label and precision by themselves
    "run",
    "ae",
    "count",
    "seed",
    "seeds",
    "each",
    "label",
    "prompt",
    "token",
    "npz",
    "trace",
    "machine",
}


def travelling(config: Sample) -> dict[str, Any]:
    """The keys that change pixels, as JSON has them, without those that say what was so before there were any of them.

    Of a command that has more keys than `sample`, such as eval-samples, those that it has beside decide no pixels.
    """
    written = config.model_dump(mode="json", include=set(Sample.model_fields) - BESIDE)
    before = {name: to_jsonable_python(value_before(field)) for name, field in Sample.model_fields.items() if not field.is_required()}
    return {name: value for name, value in written.items() if name in ALWAYS or name not in before or value != before[name]}
