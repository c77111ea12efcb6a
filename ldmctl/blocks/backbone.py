"""What perceptual distances share: how a frozen network sees a picture, features of unit length, published files of weights."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.endings import file_trouble
from ldmctl.errors import MissingError, PluginError, one_line

EPSILON = 1e-8
ONES = [1, 1], [1, 1], [1, 1]  # padding, stride and dilation

# Everything that torch.load is known to raise on a file that is cut short or something else.
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, struct.error, pickle.UnpicklingError)


class FrozenConvolution:
    """A 3 x 3 convolution with ReLU whose weights never change, and the way back through it, both outside autograd."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype):
        weight, self.bias = weight.detach().to(dtype), bias.detach().to(dtype)
        form = channels_order(weight.device)
        self.weight = weight.contiguous(memory_format=form)
        # the gradient is the convolution with the weights turned, input and output exchanged
        self.turned = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=form)
        self.packed = _packs(weight)
        if self.packed:  # once, where an ordinary convolution does it in every call
            self.weight, self.turned = (
                torch.ops.mkldnn._reorder_convolution_weight(each, *ONES, 1, [2, each.shape[1], 32, 32])
                for each in (self.weight, self.turned)
            )

    def __call__(self, x: Tensor) -> Tensor:
        """[B,I,H,W] -> [B,O,H,W], nowhere below 0."""
        if self.packed:
            return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *ONES, 1, "relu", [], "")
        return F.conv2d(x, self.weight, self.bias, padding=1).relu_()

    def back(self, slope: Tensor, output: Tensor) -> Tensor:
        """The slope of something in the `output` of a call [B,O,H,W] -> its slope in the input [B,I,H,W]."""
        slope = torch.ops.aten.threshold_backward(slope, output, 0)
        if self.packed:
            return torch.ops.mkldnn._convolution_pointwise(slope, self.turned, None, *ONES, 1, "none", [], "")
        return F.conv2d(slope, self.turned, padding=1)


def channels_order(device: torch.device) -> torch.memory_format:
    """Channels last, which convolutions and poolings on CPU and CUDA are faster in."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN's convolutions, which torch.compile uses on a CPU, take such weights."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
        found = read_weights(file)
        state = module.state_dict()  # with the versions that some modules ask for
        state.update(
            {own: found[name].to(torch.float32 if state[own].is_floating_point() else state[own].dtype) for own, name in names.items()}
        )
        module.load_state_dict(state, assign=True)
    except FileNotFoundError:
        raise MissingError(f"There is no file {file}, which should hold {what}.") from None
    except UNREADABLE as error:
        if trouble := file_trouble(error):
            raise MissingError(trouble) from None
        raise MissingError(
            f"{file} does not hold {what} ({one_line(error)[:200]}). "
            "It may be cut short or another file: remove it to have it fetched again, or name the right one in the config."
        ) from None


def torchvision_models(who: str, instead: str) -> Any:
    """torchvision's module of models; a MissingError where it cannot be imported, which says who needs it and what would do `instead`."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError beside a torch of another build
        raise MissingError(
            f"{who} needs torchvision, which cannot be imported here: {one_line(error)}. Install the torchvision that belongs to this torch, "
            f"or {instead}."
        ) from None
    return models


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by name; a ValueError or one of torch's errors when it is none."""
    if file.suffix != ".safetensors":
        return torch.load(file, map_location="cpu", weights_only=True)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file.open("rb").close()  # which says why it may not be read; safetensors says that it is not there
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(one_line(error)) from None
