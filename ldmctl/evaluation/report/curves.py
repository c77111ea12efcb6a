"""Which numbers of a run's reports stand in one picture, and what they are called."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from ldmctl.evaluation.report.parts import Plot, Series, objects
from ldmctl.storage.runs import VAL, Look, Row, finite, whole

LEVEL = re.compile(r"val/loss_sigma_([\d.]+)-([\d.]+|inf)")
SPREAD = 6  # of runs at most, side by side
RULES: list[tuple[str, Callable[[str], bool]]] = [  # titles of what is shown at once, by the names of numbers, the first that takes one
    ("Losses", lambda name: name in ("loss", "loss_weighted", VAL)),
    ("Validation by noise level", lambda name: LEVEL.fullmatch(name) is not None),
    ("Validation: PSNR, dB", lambda name: name == "val/psnr"),
    ("Validation", lambda name: name.startswith("val/")),
    ("Gradient norms", lambda name: name.endswith("/gradient")),
    ("Pictures per second", lambda name: name == "images_per_second"),
]
MORE: list[tuple[str, Callable[[str], bool]]] = [  # and of what is shown on demand
    ("Steps skipped", lambda name: name.endswith("/skipped")),
    ("Shares of the losses in the gradient", lambda name: name.endswith("_share") and name != "peak_share"),
    ("Learning rate", lambda name: name == "lr"),
    ("Memory, GiB", lambda name: name == "memory_gib"),
    ("Share of the device's peak", lambda name: name == "peak_share"),
    ("Codes in use", lambda name: name.endswith("_used")),
]


def series(rows: Sequence[Row], name: str, title: str = "") -> Series:
    """A number of the reports that have it."""
    told = [(row["step"], row[name]) for row in rows if name in row]
    found = [  # nearly all are plain numbers, and there may be a million of them
        (step, value if type(value) is float and math.isfinite(value) else finite(value))
        for step, value in told
        if type(value) is float or is_number(value)
    ]
    return Series(title or called(name), [step for step, _ in found], [value for _, value in found])


def is_number(value: object) -> bool:
    """Whether a report's value is one, or is null for one that was not finite."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def names(rows: Sequence[Row]) -> list[str]:
    """Names of the numbers in reports, in their order."""
    known: dict[str, None] = {}
    for row in rows:
        for name in row:
            if name not in known and name != "step" and is_number(row[name]):
                known[name] = None
    return list(known)


def curves(look: Look) -> tuple[list[Plot], list[Plot]]:
    """(what is shown at once, what is on demand) of a run; each number stands in one of them."""
    left, marks = names(look.rows), happened(look)
    shown: list[list[Plot]] = []
    for rules in (RULES, MORE):
        plots = []
        for title, takes in rules:
            if taken := [name for name in left if takes(name)]:
                left = [name for name in left if name not in taken]
                plots.append(Plot(title, [series(look.rows, name) for name in taken], marks))
        shown.append(plots)
    return shown[0], [*shown[1], *(Plot(called(name), [series(look.rows, name)], marks) for name in left)]


def beside(looks: Sequence[Look], titles: Sequence[str]) -> list[Plot]:
    """Numbers that several runs have, a line for each run."""
    wanted = [name for name in ("loss", VAL, "val/psnr", "images_per_second") if sum(name in names(each.rows) for each in looks) > 1]
    runs = list(zip(looks, titles, strict=True))[:SPREAD]
    return [Plot(called(name), [series(each.rows, name, title) for each, title in runs if name in names(each.rows)]) for name in wanted]


def called(name: str) -> str:
    """A number's name as a person says it."""
    if found := LEVEL.fullmatch(name):
        low, high = found.groups()
        return f"noise above {low}" if high == "inf" else f"noise {low} to {high}"
    words = {"loss": "training loss", VAL: "validation loss", "images_per_second": "pictures per second", "val/psnr": "validation PSNR, dB"}
    return words.get(name, name.removesuffix("/gradient").removeprefix("val/").replace("_", " "))


def happened(look: Look) -> list[tuple[int, str]]:
    """(step, what) of keys that were changed on the way, and of what was done about a loss that rose."""
    told = [(whole(each.get("step")), f"{each.get('key')} becomes {each.get('to')}") for each in objects(look.record, "changes")]
    told += [(whole(each.get("step")), str(each.get("why") or each.get("what"))) for each in objects(look.record, "watch")]
    return [(step, f"step {step:,}: {said}") for step, said in told if step is not None]
