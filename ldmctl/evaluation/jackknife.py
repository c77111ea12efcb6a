"""Intervals of any measure of many pictures: the measure again without each tenth of them.

The delete-a-group jackknife (Kott 2001) in place of a bootstrap, which draws some
pictures twice: measures of nearest neighbours take these for copies, and Frechet
distances for a narrower set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ldmctl.evaluation.metrics import student_95

GROUPS = 10


def groups_of(count: int) -> Tensor:
    """[N]: which group each picture is left out with, by lot: samples may be of ten classes in turn, and a group is not to be one of them."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)) % min(GROUPS, max(count, 1))


def interval(value: float, without: Sequence[float]) -> tuple[float, float, float]:
    """(value, low, high): the 95 % interval of a measure, from its values without each group. It says how far another draw of as many
    pictures would lie, with the same references. Fewer than three values have none: low and high are nan."""
    count = len(without)
    if count < 3:
        return value, math.nan, math.nan
    mean = sum(without) / count
    spread = math.sqrt((count - 1) / count * sum((each - mean) ** 2 for each in without))
    reach = student_95(count - 1) * spread
    return value, value - reach, value + reach
