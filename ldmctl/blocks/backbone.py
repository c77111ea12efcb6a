"""What perceptual distances share: how a frozen network sees a picture, features of unit length, published files of weights."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ldmctl.errors import MissingError, PluginError, one_line

EPSILON = 1e-8

# Everything that torch.load is known to raise on a file that is cut short or something else.
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, struct.error, pickle.UnpicklingError)


def check_channels(name: str, image_channels: int) -> None:
    """A PluginError unless `in_colour` can show such pictures to a network."""
    if image_channels not in (1, 3, 4):
        raise PluginError(f"{name} compares pictures of 1, 3 or 4 channels, not of {image_channels}.")


def in_colour(image: Tensor) -> Tensor:
    """[B,1|3|4,H,W] in [-1, 1] -> float32 [B,3,H,W]: grey is repeated, alpha laid over mid-grey, so that what is invisible does not count."""
    image = image.float()
    if image.shape[1] == 4:
        return image[:, :3] * (image[:, 3:] + 1) / 2
    return image.expand(-1, 3, -1, -1)


def inverse_length(features: Tensor, dim: int = 1) -> Tensor:
    """One over the length of float32 features along `dim`, which is kept."""
    # epsilon inside the root: the gradient stays finite where all features are 0
    return (torch.linalg.vector_norm(features, dim=dim, keepdim=True).square() + EPSILON).rsqrt()


def fill(module: nn.Module, file: Path, names: Mapping[str, str], what: str) -> None:
    """Put the tensors of a published file (.safetensors, or torch's without code) into a module made without storage.

    `names` says how the module's tensors are called in the file, and others stay as they are; a MissingError says that the file does not hold `what`.
    """
    try:
        found = read(file)
        state = module.state_dict()  # with the versions that some modules ask for
        state.update(
            {own: found[name].to(torch.float32 if state[own].is_floating_point() else state[own].dtype) for own, name in names.items()}
        )
        module.load_state_dict(state, assign=True)
    except UNREADABLE as error:
        raise MissingError(
            f"{file} does not hold {what} ({one_line(error)[:200]}). "
            "It may be cut short or another file: remove it to have it fetched again, or name the right one in the config of `perceptual`."
        ) from None


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by name; a ValueError or one of torch's errors when it is none."""
    if file.suffix != ".safetensors":
        return torch.load(file, map_location="cpu", weights_only=True)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(one_line(error)) from None
