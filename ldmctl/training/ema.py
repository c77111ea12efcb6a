"""Averages of the weights whose length is chosen after training.

A power average at step t gives the weights of step i a share proportional to i^gamma, so its memory grows with
training and is stated relative to it: `length` is the deviation of that profile over t, sigma_rel in arXiv:2312.02696,
section 3. Two lengths are tracked and stored now and then. The average of any other is the combination of stored
ones whose profile fits best (appendix C there); weights are read one file at a time. t counts optimizer steps from 1.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldmctl.errors import ConfigError, MismatchError
from ldmctl.storage import weights
from ldmctl.training.fsdp import Spread, gathered, laid_out

LENGTHS = (0.05, 0.10)  # tracked: those that others between 0.03 and 0.2 are combined from well
LONGEST = 12**-0.5  # gamma = 0, the plain mean

Renewed = Collection[str] | Mapping[str, Tensor]  # tensors that were re-initialised, by name; of a mapping only these rows of each

# -- profiles ----------------------------------------------------------------------


def gamma_of(length: float) -> float:
    """The exponent of the profile of this length, in (0, 0.289); a ConfigError outside."""
    if not 0 < length < LONGEST:
        raise ConfigError(f"length={length:g} is no length of a power average: more than 0, less than {LONGEST:.3f}, such as 0.08.")
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def length_of(gamma: float) -> float:
    """The deviation of a profile proportional to i^gamma on [0, t], relative to t."""
    return float((gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5))


def decay(step: int, gamma: float) -> float:
    """What is kept of the average at a step, counted from 1; nothing at the first."""
    return float((1 - 1 / step) ** (gamma + 1))


# -- while training ----------------------------------------------------------------


def file_of(folder: Path, step: int, length: float) -> Path:
    """Where the average of this length after this step is stored."""
    return folder / f"{step:09d}-{length:.3f}.safetensors"


def restart_rows(average: Mapping[str, Tensor], tensors: Mapping[str, Tensor], renewed: Renewed) -> None:
    """Copy into an average what was re-initialised, so that it does not drag what is no more along."""
    for name in renewed:
        if isinstance(renewed, Mapping):
            average[name][renewed[name]] = tensors[name][renewed[name]].to(average[name].dtype)
        else:
            average[name].copy_(tensors[name])


class PowerAverages:
    """The power averages of LENGTHS of one network's weights, float32, where the weights are, and sharded as they are.

    `averaged` names the tensors that are averaged, the trained parameters; all others are copied as they are.
    """

    def __init__(self, tensors: Mapping[str, Tensor], averaged: Collection[str]):
        self.names = [name for name in tensors if name in averaged]
        self.gammas = {length: gamma_of(length) for length in LENGTHS}
        self.averages = {length: self._begun(tensors) for length in LENGTHS}

    def _begun(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        dtypes = {name: torch.float32 if name in self.names else value.dtype for name, value in tensors.items()}
        return {name: value.detach().to(dtypes[name], copy=True) for name, value in tensors.items()}

    @torch.no_grad()
    def update(self, step: int, tensors: Mapping[str, Tensor], renewed: Renewed = ()) -> None:
        """Take in the weights after optimizer step `step`, counted from 1; what was `renewed` (re-initialised) is copied."""
        now = [tensors[name].float() for name in self.names]
        others = tensors.keys() - set(self.names)
        for length, average in self.averages.items():
            torch._foreach_lerp_([average[name] for name in self.names], now, 1 - decay(step, self.gammas[length]))
            for name in others:
                average[name].copy_(tensors[name])
            restart_rows(average, tensors, renewed)

    @torch.no_grad()
    def begin_again(self, tensors: Mapping[str, Tensor]) -> None:
        """Forget the weights so far, as if these had been there all the time."""
        for average in self.averages.values():
            for name, value in average.items():
                value.copy_(tensors[name])

    def state(self, prefix: str) -> dict[str, Tensor]:
        """Everything that a resume needs, by name."""
        return {f"{prefix}.{length:.3f}.{name}": value for length, average in self.averages.items() for name, value in average.items()}

    def restore(self, prefix: str, state: Mapping[str, Tensor | Spread]) -> None:
        """Take back what `state` gave. A MismatchError where there is nothing: a power average begins with the first step."""
        mine = self.state(prefix)
        if not mine.keys() <= state.keys():
            raise MismatchError(
                "The state of this run has no power averages, which begin with the first step: it was started without loop.keep.averages, "
                "or continued without by an ldmctl that then dropped them. Take loop.keep.averages=0, which leaves the files in averages/ "
                "as they are, or start over: another --out, or --overwrite."
            )
        for name, value in mine.items():
            if value.shape != state[name].shape:
                raise MismatchError(
                    f"The saved state is of another network: {name} is {list(state[name].shape)} there, {list(value.shape)} here."
                )
            value.copy_(laid_out(state[name], value))

    def write(self, folder: Path, step: int, header: Mapping[str, Any], *, writes: bool = True) -> list[Path]:
        """Store each average after `step` as a model file under the model's own `header` -> the files. One rank writes, all take part."""
        files = []
        for length, average in self.averages.items():
            file = file_of(folder, step, length)
            copied = sorted(average.keys() - set(self.names))
            tensors = gathered(average, keep=writes)
            if writes:
                folder.mkdir(parents=True, exist_ok=True)
                weights.save(file, tensors, {**header, "step": step, "length": length, "copied": copied})
                files.append(file)
        return files


# -- afterwards --------------------------------------------------------------------
