"""Which noise levels a sampler stops at: the keys of a spacing, and the file that holds a table of levels."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_serializer, model_validator

from ldmctl.config.base import Config
from ldmctl.errors import ConfigError, did_you_mean

Name = Literal["trailing", "leading", "linspace", "uniform", "quadratic", "beta", "karras", "exponential", "log-snr", "table"]
NAMES: tuple[str, ...] = get_args(Name)
BY_TIME = ("trailing", "leading", "linspace", "uniform", "quadratic", "beta")
USERS = {  # which spacings listen to a key
    "shift": BY_TIME,
    "alpha": ("beta",),
    "beta": ("beta",),
    "rho": ("karras",),
    "highest": ("karras", "exponential", "log-snr"),
    "lowest": ("karras", "exponential", "log-snr"),
    "table": ("table",),
}


class Spacing(Config):
    """Where a sampler stops between noise and data: its name alone, a list of levels, a file of them, or `type` and its keys."""

    type: Name = Field(
        "beta",
        description="beta: quantiles of time, more of them near both ends; trailing, leading and linspace: steps of the schedule as in diffusers; "
        "uniform: times evenly, not rounded; quadratic: their roots evenly; karras, exponential (log-snr is the same): levels evenly in a power or "
        "the logarithm; table: as listed",
    )
    shift: float = Field(
        1.0, gt=0, description="of those by time: t becomes s t / (1 + (s - 1) t), which makes each level of `flow` so many times higher"
    )
    alpha: float = Field(0.6, gt=0, description="of beta: below 1 more steps near data, the smaller the more")
    beta: float = Field(0.6, gt=0, description="of beta: below 1 more steps near noise, the smaller the more")
    rho: float = Field(7.0, ge=0.05, description="of karras: the higher, the more steps near data")
    highest: float | None = Field(
        None, gt=0, description="of karras and exponential: the first level; null: the schedule's, or 80 where that is infinite"
    )
    lowest: float | None = Field(None, gt=0, description="of karras and exponential: the last level above 0; null: that of the first step")
    table: tuple[float, ...] | None = Field(
        None, description="levels sigma / alpha, falling; for other numbers of steps their logarithms are interpolated"
    )

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, raw: Any) -> Any:
        if isinstance(raw, str):
            raw = {"type": raw}
        elif isinstance(raw, list | tuple):
            raw = {"table": raw}
        if not isinstance(raw, dict):
            return raw
        name = raw.get("type")
        if isinstance(name, str) and name not in NAMES:
            return {**raw, "type": "table", "table": read_table(name)}
        return {"type": "table", **raw} if raw.get("table") is not None else raw

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        for key, users in USERS.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.type not in users:
                raise ValueError(f"{key} is of {' and '.join(users)}, not of {self.type}")
        if self.type == "table":
            check_table(self.table)
        if self.highest is not None and self.lowest is not None and self.highest <= self.lowest:
            raise ValueError(f"highest={self.highest:g} is not above lowest={self.lowest:g}")
        return self

    @model_serializer
    def _as_short_as_it_was_asked(self) -> Any:
        keys = {key: getattr(self, key) for key, field in type(self).model_fields.items() if getattr(self, key) != field.default}
        keys = {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}
        return {"type": self.type, **keys} if set(keys) - {"type"} else self.type


def spacing_of(given: Spacing | str | Sequence[float]) -> Spacing:
    """A spacing by its name, by a list of levels or by the file of one; a ConfigError for anything else."""
    try:
        return Spacing.model_validate(given)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"spacing={given!r}: {said}{'' if said.endswith('?') else '.'}") from None


def read_table(name: str) -> list[float]:
    """The levels in a file that `ldmctl spacing` wrote, or in one that holds only a list; a ValueError for any other."""
    file = Path(name).expanduser()
    if not (name.endswith(".json") or os.sep in name or file.is_file()):
        raise ValueError(
            f"{name!r} is none of {', '.join(NAMES)}, nor the file of a table, such as spacing.json.{did_you_mean(name, NAMES)}"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the table {name} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{name} is no table of levels: it is not JSON") from None
    levels = found.get("levels") if isinstance(found, dict) else found
    if not isinstance(levels, list):
        raise ValueError(f"{name} is no table of levels: it holds neither a list nor an object with `levels`")
    return levels


def table_of(run: str) -> Path:
    """Where the table of a model lies unless another place is named: RUN/spacing.json, of a snapshot RUN/spacing-best.json or RUN/spacing-STEP.json."""
    name, _, snapshot = run.rpartition("@") if "@" in Path(run).name else (run, "", "")
    if snapshot.isdecimal():
        snapshot = str(int(snapshot))
    return Path(name).expanduser() / (f"spacing-{snapshot}.json" if snapshot else "spacing.json")


def check_table(table: Sequence[float] | None) -> None:
    """A ValueError unless levels are finite and fall from each to the next, to above 0 or to 0."""
    if not table or not table[0] > 0:
        raise ValueError("a table needs at least one level above 0, such as table=[14.6,4.1,1.2,0.3]")
    for place, (level, following) in enumerate(pairwise(table), start=2):
        if not following < level:
            raise ValueError(
                f"a table falls from each level to the next, and this one goes from {level:g} to {following:g} (its level {place})"
            )
    if not all(math.isfinite(level) for level in table) or table[-1] < 0:
        raise ValueError("levels of a table are finite and not negative")
