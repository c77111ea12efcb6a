"""Averages of a length that is chosen after training, built from the stored ones (Karras et al., arXiv:2312.02696, section 3)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ldmctl.errors import ConfigError, MismatchError
from ldmctl.storage import weights
from ldmctl.storage.apart import within
from ldmctl.storage.folder import make_folder
from ldmctl.training.ema import gamma_of

ROUGH, HOPELESS = 0.05, 0.5  # misfit of a profile that is warned of, and that is refused
NEGLIGIBLE = 1e-9  # coefficients below it leave no trace in float32, and their files are not read


class Stored(NamedTuple):
    """One file that `PowerAverages.write` wrote."""

    path: Path
    step: int
    length: float


class Built(NamedTuple):
    """An average made of stored ones: a model, and how it came about."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]  # of a model file
    used: dict[str, float]  # coefficients by file name
    misfit: float  # see `combination`


def stored_in(folder: Path) -> list[Stored]:
    """The averages in a folder by step and length, without reading their weights; a MismatchError when there are none."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        header = weights.read_header(path)
        if not {"step", "length", "copied"} <= header.keys():
            raise MismatchError(f"{path} is not a stored average of weights; {folder} should hold nothing else.")
        found.append(Stored(path, int(header["step"]), float(header["length"])))
    if not found:
        raise MismatchError(
            f"{folder} holds no averages to build from. They are stored while training, from the first step on: loop.keep.averages=N stores them each N steps."
        )
    return sorted(found, key=lambda each: (each.step, each.length))


def built(folder: Path, length: float, step: int | None = None) -> Built:
    """The power average of `length` at `step`, by default the last stored one, from the files in `folder`.

    Holds one sum in float64 and one file at a time. Files beyond the first that reaches the step are not used. A length
    that the files come nowhere near, or a step outside of them, is a ConfigError.
    """
    gamma_of(length)
    found = stored_in(folder)
    first, last = found[0].step, found[-1].step
    step = last if step is None else step
    if not first <= step <= last:
        raise ConfigError(f"step={step} is outside of the averages in {folder}, which are of steps {first} to {last}.")
    reach = min(each.step for each in found if each.step >= step)
    usable = [each for each in found if each.step <= reach]
    coefficients, misfit = combination(step, length, [(each.step, each.length) for each in usable])
    if misfit > HOPELESS:
        raise ConfigError(
            f"length={length:g} cannot be built from the {len(usable)} averages in {folder} (its profile would be wrong by {misfit:.0%}). "
            "Take one nearer to 0.05 to 0.1, or store averages more often: loop.keep.averages."
        )
    total: dict[str, Tensor] = {}
    header: dict[str, Any] = {}
    used = {}
    for each, coefficient in zip(usable, coefficients, strict=True):
        if coefficient:
            header = _add(total, each.path, coefficient)
            used[each.path.name] = coefficient
    tensors = {name: value if name in header["copied"] else value.float() for name, value in total.items()}
    header = {key: value for key, value in header.items() if key != "copied"}
    return Built(tensors, {**header, "step": step, "length": length}, used, misfit)


def _add(total: dict[str, Tensor], path: Path, coefficient: float) -> dict[str, Any]:
    """Add a file's averages to the sum; what is only copied is taken from the last file -> its header."""
    tensors, header = weights.load(path)
    if total and {name: value.shape for name, value in total.items()} != {name: value.shape for name, value in tensors.items()}:
        raise MismatchError(f"{path} holds another network than the averages beside it.")
    for name in list(tensors):
        value = tensors.pop(name)
        if name in header["copied"]:
            total[name] = value
        else:
            total.setdefault(name, torch.zeros_like(value, dtype=torch.float64)).add_(value, alpha=coefficient)
    return header


def write_model(run: Path, length: float, *, step: int | None = None, out: Path | None = None) -> tuple[Path, Built]:
    """Build an average from a run's folder and write it as a snapshot that `--run RUN@ema-LENGTH` names -> (file, what it is)."""
    if not run.is_dir():
        raise MismatchError(f"There is no run folder {run}. --run names another.")
    file = out or run / "snapshots" / f"{snapshot_name(length, step)}.safetensors"
    _refuse_other(file, run)
    average = built(run / "averages", length, step)
    make_folder(file.parent)
    for old in file.parent.glob(f".{file.name}.*.tmp"):  # of a command that was killed
        old.unlink(missing_ok=True)
    weights.save(file, average.tensors, average.header)
    return file, average


def _refuse_other(file: Path, run: Path) -> None:
    """A ConfigError where the average would take the place of anything but an average that was built before, or lie among the stored ones."""
    if file.is_dir():
        raise ConfigError(f"{file} is a folder; --out wants the name of a file, such as {file / 'ema.safetensors'}.")
    if within(file, run / "averages"):
        raise ConfigError(f"--out {file} lies in {run / 'averages'}, which this command reads. Name another --out, or none.")
    if out_of_place(file):
        raise ConfigError(f"{file} is there already and is no average that `ldmctl ema` wrote, so it is not replaced. Name another --out.")


def out_of_place(file: Path) -> bool:
    """Whether there is something of this name that `write_model` did not write, such as a run's own model or a stored average."""
    if not os.path.lexists(file):
        return False
    try:
        header = weights.read_header(file)
    except (MismatchError, OSError):
        return True
    return "length" not in header or "copied" in header  # which the stored averages have, that it is built from


def snapshot_name(length: float, step: int | None = None) -> str:
    """`ema-0.080`, or `ema-0.080-000005000` of a step that was asked for."""
    shown = f"{length:.3f}" if round(length, 3) == length else f"{length:g}"
    return f"ema-{shown}" if step is None else f"ema-{shown}-{step:09d}"


def overlaps(steps: np.ndarray, gammas: np.ndarray, other_steps: np.ndarray, other_gammas: np.ndarray) -> np.ndarray:
    """Inner products [n,m] of profiles p(i) = (gamma + 1) i^gamma / t^(gamma + 1) on [0, t], float64."""
    t, g, s, h = steps[:, None], gammas[:, None], other_steps[None], other_gammas[None]
    # the integral of p q ends at the shorter one's t; its powers of t / s are taken of the longer profile's exponent
    falls = np.where(t < s, h * np.log(t / s), g * np.log(s / t))
    return (g + 1) * (h + 1) / (g + h + 1) * np.exp(falls) / np.maximum(t, s)


def combination(step: int, length: float, stored: Sequence[tuple[int, float]]) -> tuple[list[float], float]:
    """The coefficients of stored averages (step, length) that come nearest to the average of `length` at `step`, and their misfit.

    They minimize the squared distance of the profiles and add up to 1, so that weights that stood still stay as
    they are. The misfit is that distance relative to the profile's size, about the most that the combination is
    wrong by, relative to how far the average is from the last weights.
    """
    steps, gammas = np.array([step for step, _ in stored], dtype=float), np.array([gamma_of(each) for _, each in stored])
    wanted = np.array([step], dtype=float), np.array([gamma_of(length)])
    gram, aims = overlaps(steps, gammas, steps, gammas), overlaps(steps, gammas, *wanted)[:, 0]
    size = gram.diagonal() ** -0.5
    matrix = np.block([[gram * np.outer(size, size), size[:, None]], [size[None], np.zeros((1, 1))]])  # Lagrange: the sum is 1
    found = size * np.linalg.solve(matrix, np.append(aims * size, 1.0))[:-1]
    found[np.abs(found) < NEGLIGIBLE] = 0
    whole = float(overlaps(*wanted, *wanted)[0, 0])
    misfit = max(whole - 2 * aims @ found + found @ gram @ found, 0.0) / whole
    return found.tolist(), float(misfit**0.5)
