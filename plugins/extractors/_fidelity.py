"""torch-fidelity's extractors: networks and preprocessing are its own, so that numbers are those of everybody who uses it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ldmctl.errors import MissingError, one_line

from ._weights import WITHOUT

FILTER = "TensorFlow 1's bilinear filter"  # as torch-fidelity computes it
Made = TypeVar("Made")
FOREIGN = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError)


def library(module: str) -> Any:
    """A module of torch-fidelity; a MissingError says how to have it."""
    try:
        import importlib

        return importlib.import_module(f"torch_fidelity.{module}")
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingError(
            f"This extractor is torch-fidelity's, which cannot be imported here: {one_line(error)}\n"
            f"Ways out:\n  pip install 'ldmctl[fid]'\n  or {WITHOUT}"
        ) from None


def made(what: str, make: Callable[[], Made], file: Path | None = None) -> Made:
    """What `make` gives; that its weights cannot be had or are others is a MissingError with the ways out."""
    try:
        return make()
    except FOREIGN as error:
        where = f"{file} does not hold {what}" if file else f"{what} cannot be had here"
        raise MissingError(f"{where}: {one_line(error)[:300]}\nWays out:\n  another file in extractor.weights\n  or {WITHOUT}") from None


def pickled(file: Path, what: str) -> None:
    """A MissingError unless the file holds tensors and nothing that would be run, as torch-fidelity would run it."""
    made(what, lambda: torch.load(file, map_location="cpu", weights_only=True, mmap=True), file)


def as_colour(image: Tensor) -> Tensor:
    """uint8 [B,1|3|4,H,W] -> uint8 [B,3,H,W]: grey is repeated, alpha laid over white."""
    if image.shape[1] == 4:
        alpha = image[:, 3:].float() / 255
        return (image[:, :3].float() * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    return image.expand(-1, 3, -1, -1)
