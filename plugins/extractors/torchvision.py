"""Any classifier of torchvision, its weights from a file: what its last map shows, averaged over places.

ImageNet's classes decided what such a network sees. Its numbers are no FID, and
are comparable where network, weights and preparation are the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ldmctl.blocks import check_channels, fill, in_colour, torchvision_models
from ldmctl.config import PluginConfig
from ldmctl.errors import ConfigError, did_you_mean

from ._weights import find

CLASSIFY = ("avgpool", "classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits")  # parts that only say the class
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the networks were trained with


class Torchvision(nn.Module):
    """The last map [B,D,h,w] of a frozen convolutional network, averaged over its places."""

    class Config(PluginConfig):
        network: str = Field("squeezenet1_0", description="a convolutional classifier of torchvision.models")
        weights: str | None = Field(
            None,
            description="its weights, .safetensors or .pth, under torchvision's names; null: torchvision's own, looked for, then downloaded",
        )
        size: int = Field(224, ge=64, description="side that pictures are resized to, by an antialiased bilinear filter")

    def __init__(self, config: Config, *, image_channels: int, size: int, classes: Sequence[str] = (), encoder: Any = None):
        super().__init__()
        check_channels("torchvision", image_channels)
        models, self.size = torchvision_models("The extractor torchvision", "take --extractor fitted or latent"), config.size
        if config.network not in (known := models.list_models(module=models)):
            raise ConfigError(f"torchvision.models has no network {config.network!r}.{did_you_mean(config.network, known)}")
        self.title, self.resize = config.network, f"{config.size}x{config.size} by an antialiased bilinear filter"
        with torch.random.fork_rng(devices=[]):
            self.network = models.get_model(config.network, weights=None).eval().requires_grad_(False)
        official = models.get_model_weights(config.network).DEFAULT.url.rsplit("/", 1)[1]
        digits = re.search(r"-([0-9a-f]{8,})\.", official)
        url = models.get_model_weights(config.network).DEFAULT.url
        file = find(official, url=url, sha256=digits and digits[1], given=config.weights)
        names = {name: name for name in self.network.state_dict() if not name.endswith("num_batches_tracked")}
        fill(self.network, file, names, f"torchvision's weights of {config.network}")
        self.last = self._last_map()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Torchvision:
        """Stays in evaluation, whatever the module that holds it is told."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B,C,size,size] -> features [B,D] float32."""
        seen = (in_colour(image.float() / 127.5 - 1) + 1) / 2
        seen = F.interpolate(seen, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        found: dict[str, Tensor] = {}
        with _watched(self.network, {self.last}, lambda name, output: found.__setitem__(name, output.float().mean((2, 3)))):
            self.network((seen - self.mean) / self.deviation)
        return found[self.last]

    def _last_map(self) -> str:
        """The name of the last module that gives a map before what classifies; a ConfigError where there is none."""
        maps: list[str] = []
        every = {name for name, _ in self.network.named_modules() if name and name.split(".")[0] not in CLASSIFY}
        with torch.no_grad(), _watched(self.network, every, lambda name, output: maps.append(name) if _is_map(output) else None):
            self.network(torch.zeros(1, 3, self.size, self.size))
        if not maps:
            raise ConfigError(
                f"{self.title} gives no map [B,D,h,w] of a picture: take a convolutional network, such as squeezenet1_0 or resnet18."
            )
        return maps[-1]


class _watched:
    """While it lasts, `keep(name, output)` is called behind each call of these modules."""

    def __init__(self, network: nn.Module, names: set[str], keep: Any):
        self.network, self.names, self.keep = network, names, keep

    def __enter__(self) -> None:
        self.handles = [
            module.register_forward_hook(lambda _module, _input, output, name=name: self.keep(name, output))
            for name, module in self.network.named_modules()
            if name in self.names
        ]

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()


def _is_map(output: Any) -> bool:
    """Whether it is [B,D,h,w]."""
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]
