"""LPIPS: how far apart two pictures lie in the features of VGG16, weighed as people judged (arXiv:1801.03924).

Five stages of a frozen VGG16 see both pictures; each position's features are
scaled to unit length, their squared differences weighed by a learned head per
stage, averaged over positions and summed. Grey is repeated. Colours with alpha
are laid over mid-grey first, so what is invisible does not count.
"""

from __future__ import annotations

import pickle
import struct
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmctl.assets import find_weights
from ldmctl.config import PluginConfig
from ldmctl.errors import DataError, MissingError, PluginError, one_line

FILE = "vgg16-397923af.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"

WIDTHS = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]  # a stage each, pooled in between
ENDS = [0, 4, 9, 16, 23, 30]  # where each stage ends among torchvision's `features`: behind its last ReLU
SMALLEST = 16  # pixels that four poolings leave one of

# Everything that torch.load is known to raise on a file that is cut short or something else.
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, struct.error, pickle.UnpicklingError)


class LPIPS(nn.Module):
    """The VGG variant of LPIPS v0.1; equals torchmetrics' and lpips' numbers on their weights."""

    class Config(PluginConfig):
        weights: str | None = Field(None, description=f"torchvision's {FILE}; null: looked for, then downloaded")
        heads: str | None = Field(None, description="vgg.pth of LPIPS v0.1; null: the file inside the installed torchmetrics")

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        if image_channels not in (1, 3, 4):
            raise PluginError(f"lpips compares pictures of 1, 3 or 4 channels, not of {image_channels}.")
        with torch.device("meta"):  # initial weights would only be thrown away
            self.features = _vgg16()
            self.heads = nn.ParameterList(torch.empty(1, widths[-1], 1, 1) for widths in WIDTHS)
        heads = Path(config.heads).expanduser() if config.heads else _heads_of_torchmetrics()
        _fill(self.heads, heads, {f"lin{i}.model.1.weight": str(i) for i in range(len(WIDTHS))}, "the heads of LPIPS v0.1 for VGG16")
        tower = find_weights(FILE, url=URL, sha256=SHA256, given=config.weights)
        _fill(self.features, tower, {f"features.{name}": name for name in self.features.state_dict()}, "torchvision's weights of VGG16")
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in evaluation, whatever the module that holds it is told."""
        return super().train(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """[B,C,H,W] twice, in [-1, 1] -> [B] float32, 0 when equal; a DataError under 16 x 16 pixels."""
        if min(image.shape[-2:]) < SMALLEST:
            raise DataError(
                f"lpips needs pictures of at least {SMALLEST} x {SMALLEST} pixels, these have {image.shape[-1]} x {image.shape[-2]}: "
                "set a larger image.size, or perceptual: null."
            )
        x, y = self._seen(image), self._seen(target.detach())
        distance = x.new_zeros(len(x), dtype=torch.float32)
        for (start, end), head in zip(pairwise(ENDS), self.heads, strict=True):
            for layer in self.features[start:end]:
                x = layer(x)
                with torch.no_grad():
                    y = layer(y)
            with torch.autocast(x.device.type, enabled=False):
                distance = distance + ((_unit(x.float()) - _unit(y.float())).square() * head).sum(1).mean((1, 2))
        return distance

    def _seen(self, image: Tensor) -> Tensor:
        """[B,1|3|4,H,W] -> [B,3,H,W] as the tower was trained to see it."""
        image = image.float()
        if image.shape[1] == 4:
            image = image[:, :3] * (image[:, 3:] + 1) / 2
        return (image - self.shift) / self.scale  # the three shifts repeat grey


def _unit(features: Tensor) -> Tensor:
    # eps inside the root: the gradient stays finite where all features are 0
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _vgg16() -> nn.Sequential:
    """The convolutions of VGG16 (arXiv:1409.1556) up to the last tap, numbered as torchvision numbers them."""
    layers: list[nn.Module] = []
    channels = 3
    for stage, widths in enumerate(WIDTHS):
        layers += [nn.MaxPool2d(2)] if stage else []
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers)


def _fill(module: nn.Module, file: Path, names: dict[str, str], what: str) -> None:
    """Puts the tensors of a published file into a module made without storage; a MissingError when they do not fit."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        module.load_state_dict({own: found[name].float() for name, own in names.items()}, assign=True)
    except UNREADABLE as error:
        raise MissingError(
            f"{file} does not hold {what} ({one_line(error)[:200]}). "
            "It may be cut short or another file: remove it to have it fetched again, or name the right one in the config of `perceptual`."
        ) from None


def _heads_of_torchmetrics() -> Path:
    spec = find_spec("torchmetrics")  # found, not imported: its import would pull in torchvision
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (file := Path(folder) / "functional" / "image" / "lpips_models" / "vgg.pth").is_file():
            return file
    raise MissingError(
        "The heads of LPIPS (lpips_models/vgg.pth) are not in the installed torchmetrics: pip install 'torchmetrics>=1.5', "
        "or name the file of lpips v0.1 as perceptual.heads=FILE."
    )
