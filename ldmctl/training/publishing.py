"""Which weights a finished run publishes: the last, or the best by validation."""

import math
import shutil
from typing import Any

from ldmctl.storage import weights
from ldmctl.training.loop import Training

BOUND = 0.1  # where loop.watch has none


def publish(training: Training, judged_by: str) -> dict[str, Any]:
    """{"which": "last" or "best", "step", "why"} of model.safetensors, as `loop.publish` asks; written into run.json by the first rank.

    `judged_by` names the validation loss whose lowest value snapshots/best has.
    """
    last, best = training.last_validation.get(judged_by, math.nan), training.scalars.get("best")
    file, loop = training.snapshots.folder / "best.safetensors", training.loop
    name = judged_by.replace("val/", "validation ")
    found: dict[str, Any] = {"which": "last", "step": training.done, "why": f"loop.publish={loop.publish}"}
    if loop.publish != "last" and best is not None and file.exists():
        bound = (loop.watch.bound or BOUND) if loop.publish == "auto" else 0.0
        said = f"its {name} is {best:.4g}, that of the last step {last:.4g}"
        lost = judged_by in training.last_validation and not math.isfinite(last)
        if lost or (best > 0 and last > (1 + bound) * best):
            found = {"which": "best", "step": weights.read_header(file)["step"], "why": said}
        elif math.isfinite(last):
            found["why"] = f"its {name} is {last:.4g}, the best was {best:.4g}"
    elif loop.publish == "best":
        found["why"] = "no best ones were kept: that needs held-out pictures and loop.keep.best"
    training.complete(found["step"] if found["which"] == "best" else None)
    if training.run.writes:
        if found["which"] == "best":
            with weights.replacing(training.run.folder / "model.safetensors") as temporary:
                shutil.copyfile(file, temporary)
        training.run.update(published=found)
    return found


def said(published: dict[str, Any]) -> str:
    """`the last ones, of step 2,000 (why)`"""
    which = "the best ones" if published["which"] == "best" else "the last ones"
    return f"{which}, of step {published['step']:,} ({published['why']})"
