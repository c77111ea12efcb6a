"""Runs side by side: the keys in which they differ, their last numbers, and whose are better where that can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmctl.config.differences import PLACES
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.config.usual import ABSENT, differing
from ldmctl.storage.runs import Look

HIGHER = {"psnr", "ssim", "images_per_second"}
LOWER = {"loss", "pixel", "perceptual", "lpips"}
OF_PICTURES = {"psnr", "ssim", "lpips"}  # whatever the losses are
MEANS = {  # sections of the config that decide what a loss measures
    "fit-ae": ("image", "losses", "perceptual"),
    "fit-diffusion": ("prediction", "schedule"),
}


def contrast(looks: Sequence[Look]) -> dict[str, Any]:
    """{"runs", "steps", "config": [{"key", "values"}], "metrics": [{"name", "values", "steps", "better"}], "cautions"}.

    `steps` are those of the last numbers, `better` is the place of the best run, or None.
    """
    verbs = {each.verb for each in looks}
    schema = VERBS.get(looks[0].verb or "") if len(verbs) == 1 else None
    owners = [each.verb for each in looks]
    rows = [(key, values) for key, values in differing(schema, [each.config for each in looks]) if shared(values, owners, ABSENT)]
    why = [] if schema is None else unlike(looks, [key for key, _ in rows])
    told = [each.reported() for each in looks]
    metrics = []
    for name in sorted({name for each in told for name in each}, key=order):
        found = [each.get(name, (None, None)) for each in told]
        values = [value for _, value in found]
        best = better(name, values, why if schema else None)
        if shared(values, owners, None):
            metrics.append({"name": name, "values": values, "steps": [step for step, _ in found], "better": best})
    return {
        "runs": [str(each.folder) for each in looks],
        "steps": [max((step for step, _ in each.values()), default=None) for each in told],
        "config": [{"key": key, "values": values} for key, values in rows],
        "metrics": metrics,
        "cautions": cautions(looks, why, metrics),
    }


def shared(values: Sequence[Any], verbs: Sequence[str | None], absent: Any) -> bool:
    """Whether a run of each verb has a value."""
    return len({verb for verb, value in zip(verbs, values, strict=True) if value != absent}) == len(set(verbs))


def cautions(looks: Sequence[Look], why: Sequence[str], metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why numbers cannot be compared, or only with care."""
    if len(verbs := {each.verb or "an unknown verb" for each in looks}) > 1:
        left = "What only some of these have is left out."
        return [f"These are runs of {' and '.join(sorted(verbs))}: their numbers are of different things. {left}"]
    measure = f"Their losses measure different things ({', '.join(why)} differ), so none of them is called better."
    return [*([measure] if why else []), *ages(looks, metrics)]


def ages(looks: Sequence[Look], metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence where the last losses of runs are of different steps; validation is asked first."""
    for each in metrics:
        is_loss = direction(each["name"]) and each["name"] != "images_per_second"
        known = [(look.folder, step) for look, step in zip(looks, each["steps"], strict=True) if step is not None]
        if is_loss and len({step for _, step in known}) > 1:
            where = ", ".join(f"step {step:,} of {folder}" for folder, step in known)
            return [
                f"Their last losses are of different ages ({each['name']}: {where}): a run that is trained longer mostly has lower ones."
            ]
    return []


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
    kind, sign = name.removeprefix("val/"), direction(name)
    if unlike is None or not sign or (unlike and kind != "images_per_second" and not same_pictures(kind, unlike)):
        return None
    known = [(sign * value, place) for place, value in enumerate(values) if value is not None]
    if len(known) < 2 or len({value for value, _ in known}) == 1:
        return None
    return max(known)[1]


def direction(name: str) -> int:
    """1 where higher is better, -1 where lower is, 0 where nobody can say."""
    kind = name.removeprefix("val/")
    return 1 if kind in HIGHER else -1 if kind in LOWER or kind.startswith("loss") else 0


def same_pictures(kind: str, unlike: Sequence[str]) -> bool:
    """Whether a measure of pictures can be compared: the pictures and their preparation are the same, whatever the losses."""
    return kind in OF_PICTURES and not [each for each in unlike if each.split(".")[0] == "image" or each.startswith("the held-out")]


def order(name: str) -> tuple[bool, bool, str]:
    """Validation first, then what is trained by, then the rest by name."""
    return not name.startswith("val/"), name != "loss", name
