"""Why an autoencoder is no better: what the curves of its run show, each with the key that changes it. Said before "more steps"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ldmctl.config.schemas.fit_ae import FitAE

Row = Mapping[str, Any]  # a line of metrics.jsonl

HEARD = "adversarial_weight"
RISEN = 1.05  # of a loss on the way, above which its end counts as risen
RISEN_WHILE_TRAINING = 1.25  # the same of a loss whose every value is of other pictures
BEATEN = 0.02  # mean advantage over the last half of the adversarial phase, below which there was little to learn from
RULES = 0.9  # share of one loss in the gradient, beyond which the others hardly count
GROWN = 1.5  # of the largest latent, from the middle of the run to its end
UNUSED = 0.8  # of the codes in use at the best, below which they are dying
TINY = 1e-12
LATE = 4  # reports at least, to speak of a trend


class Cause(NamedTuple):
    """What is wrong, in a sentence with its numbers and the key to change."""

    about: str
    sentence: str


def causes(rows: Sequence[Row], config: FitAE, *, since: int = 0) -> list[Cause]:
    """What the reports of a run show, the most harmful first; nothing of a run that was well.

    Reports up to step `since`, where losses were other ones, say only when the discriminator was heard.
    """
    rows = [row if row["step"] > since else {name: row[name] for name in ("step", HEARD) if name in row} for row in rows]
    looks = (rising, beaten, one_rules, growing_latent, dying_codes)
    return [cause for look in looks if (cause := look(rows, config)) is not None]


def rising(rows: Sequence[Row], config: FitAE) -> Cause | None:
    """The validation loss ends above its lowest; where nothing is held out, the pixel loss while training."""
    (steps, values), title, bound = curve(rows, "val/loss"), "validation", RISEN
    if not values:
        (steps, values), title, bound = curve(rows, "pixel"), "pixel", RISEN_WHILE_TRAINING
    if len(values) < LATE or not min(values) > 0 or values[-1] <= bound * min(values):
        return None
    best = values.index(min(values))
    said = f"The {title} loss was lowest at step {steps[best]:,} ({values[best]:.4g}) and is {values[-1]:.4g} at the end"
    begun = next((row["step"] for row in rows if row.get(HEARD, 0) > 0), None)
    near = max(steps[-1] // 10, 1)
    if begun is not None and max((step for step in steps if step < begun), default=begun) - near <= steps[best] <= begun + near:
        louder = "adversarial.weight" if config.losses.shares is None else "losses.shares.adversarial"
        way = f"a smaller loop.lr or a smaller {louder}"
        return Cause("rising losses", f"{said}: it has risen since the discriminator is heard; try {way}.")
    return Cause("rising losses", f"{said}: it learns too fast or too long; try a smaller loop.lr, or loop.decay=cosine.")


def beaten(rows: Sequence[Row], config: FitAE) -> Cause | None:
    """The discriminator could not tell real pictures from made ones."""
    _, values = curve(rows, "discriminator/advantage")
    late = values[len(values) // 2 :]
    if len(late) < LATE or sum(late) / len(late) >= BEATEN:
        return None
    mean = sum(late) / len(late)
    so = "it was hardly heard" if config.adversarial.advantage else "what was heard of it is noise"
    return Cause(
        "the discriminator",
        f"The discriminator could hardly tell reconstructions from pictures (an advantage of {mean:.3f}, where 1 is always right), so "
        f"{so}; try a larger adversarial.lr, a smaller loop.lr, or more discriminator.widths.",
    )


def one_rules(rows: Sequence[Row], config: FitAE) -> Cause | None:
    """One loss on the picture makes nearly all of the gradient, by its scale."""
    if config.losses.shares is not None:
        return None
    found = {name: values[-1] for name in shares_in(rows) if name != "adversarial_share" and (values := curve(rows, name)[1])}
    whole = max(sum(found.values()), TINY)  # the adversarial loss is balanced against the others: its part says nothing of their scales
    found = {name: value / whole for name, value in found.items()}
    if len(found) < 2 or (top := max(found, key=found.__getitem__)) == "pixel_share" or found[top] < RULES:
        return None
    name = top.removesuffix("_share")
    return Cause(
        "the losses",
        f"{name} makes {found[top]:.0%} of the gradient of the losses on the picture and the pixel loss {found.get('pixel_share', 0):.0%}: by its "
        "scale, not by choice; try losses.shares, such as {pixel: 0.3, perceptual: 0.6, adversarial: 0.1}.",
    )


def growing_latent(rows: Sequence[Row], config: FitAE) -> Cause | None:
    """The largest latent value keeps growing."""
    steps, values = curve(rows, "latent_max")
    if len(values) < LATE or not values[len(values) // 2] > 0 or values[-1] < GROWN * values[len(values) // 2]:
        return None
    middle = len(values) // 2
    way = "a larger autoencoder.kl_weight, or a smaller loop.lr" if hasattr(config.autoencoder, "kl_weight") else "a smaller loop.lr"
    return Cause(
        "the latent",
        f"The largest latent value grew from {values[middle]:.3g} at step {steps[middle]:,} to {values[-1]:.3g} at the end: nothing holds it; "
        f"try {way}.",
    )


def dying_codes(rows: Sequence[Row], config: FitAE) -> Cause | None:
    """Fewer codes are used at the end than on the way."""
    steps, values = curve(rows, "codes_used")
    if len(values) < LATE or values[-1] >= UNUSED * max(values):
        return None
    best = values.index(max(values))
    way = "a smaller loop.lr, or autoencoder.revive" if hasattr(config.autoencoder, "revive") else "a smaller loop.lr"
    return Cause(
        "the codes",
        f"{values[-1]:,.0f} codes are in use, at step {steps[best]:,} it was {values[best]:,.0f}: codes die; try {way}.",
    )


def curve(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of a number, those that are finite."""
    found = [(row["step"], float(row[name])) for row in rows if isinstance(row.get(name), int | float) and math.isfinite(row[name])]
    return [step for step, _ in found], [value for _, value in found]


def shares_in(rows: Sequence[Row]) -> list[str]:
    """Names of the losses' shares that reports have."""
    return sorted({key for row in rows for key in row if key.endswith("_share") and key != "peak_share"})
