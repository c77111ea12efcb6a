"""Runs of one verb side by side: the keys in which they differ, their last numbers, and whose are better where that can be said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ldmctl.config.differences import PLACES
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.config.usual import differing
from ldmctl.storage.runs import Look

HIGHER = {"psnr", "ssim", "images_per_second"}
LOWER = {"loss", "pixel", "perceptual", "lpips"}
OF_PICTURES = {"psnr", "ssim", "lpips"}  # whatever the losses are
MEANS = {  # sections of the config that decide what a loss measures
    "fit-ae": ("image", "losses", "perceptual"),
    "fit-diffusion": ("prediction", "schedule"),
}


def contrast(looks: Sequence[Look]) -> dict[str, Any]:
    """{"runs", "config": [{"key", "values"}], "metrics": [{"name", "values", "better"}], "cautions"}; `better` is the place of the best run, or None."""
    verbs = {each.verb for each in looks}
    schema = VERBS.get(looks[0].verb or "") if len(verbs) == 1 else None
    rows = differing(schema, [each.config for each in looks])
    why = [] if schema is None else unlike(looks, [key for key, _ in rows])
    cautions = []
    if len(verbs) > 1:
        cautions.append(f"These are runs of {' and '.join(sorted(map(str, verbs)))}: their numbers are of different things.")
    elif why:
        cautions.append(f"Their losses measure different things ({', '.join(why)} differ), so none of them is called better.")
    last = [each.last() for each in looks]
    names = sorted({name for each in last for name in each}, key=order)
    return {
        "runs": [str(each.folder) for each in looks],
        "config": [{"key": key, "values": values} for key, values in rows],
        "metrics": [
            {"name": name, "values": (values := [each.get(name) for each in last]), "better": better(name, values, why if schema else None)}
            for name in names
        ],
        "cautions": cautions,
    }


def unlike(looks: Sequence[Look], keys: Sequence[str]) -> list[str]:
    """What differs between runs of one verb that decides what their losses measure."""
    sections = MEANS.get(looks[0].verb or "", ())
    found = [key for key in keys if key.split(".")[0] in sections and key.rpartition(".")[2] not in PLACES]
    told = [held_out(each) for each in looks]
    if any(each != told[0] for each in told):
        found.append("the held-out latents" if looks[0].verb == "fit-diffusion" else "the held-out pictures")
    return found


def held_out(look: Look) -> Any:
    """What tells which items validation was on."""
    if look.verb == "fit-diffusion":
        return look.record.get("cache")
    pictures = look.record.get("pictures")
    val = pictures.get("val") if isinstance(pictures, dict) else None
    return [val.get(key) for key in ("count", "names")] if isinstance(val, dict) else None


def better(name: str, values: Sequence[float | None], unlike: Sequence[str] | None) -> int | None:
    """The place of the best value; None where runs are of different verbs or data, all are equal, or nobody can say what is better."""
    kind = name.removeprefix("val/")
    sign = 1 if kind in HIGHER else -1 if kind in LOWER or kind.startswith("loss") else 0
    if unlike is None or not sign or (unlike and kind != "images_per_second" and not same_pictures(kind, unlike)):
        return None
    known = [(sign * value, place) for place, value in enumerate(values) if value is not None]
    if len(known) < 2 or len({value for value, _ in known}) == 1:
        return None
    return max(known)[1]


def same_pictures(kind: str, unlike: Sequence[str]) -> bool:
    """Whether a measure of pictures can be compared: the pictures and their preparation are the same, whatever the losses."""
    return kind in OF_PICTURES and not [each for each in unlike if each.split(".")[0] == "image" or each.startswith("the held-out")]


def order(name: str) -> tuple[bool, bool, str]:
    """Validation first, then what is trained by, then the rest by name."""
    return not name.startswith("val/"), name != "loss", name
