"""DINOv2 as torch-fidelity sees pictures with it: features learned without labels, which rank samples much as people do.

Stein et al. (arXiv:2306.04675) found so for the Frechet distance of ViT-L/14. Theirs
resizes by an antialiased bicubic filter and torch-fidelity's by TensorFlow's
bilinear one: name the library beside the number. torch-fidelity runs code that
torch.hub downloads; here a file of weights is all it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmctl.blocks import check_channels, fill
from ldmctl.config import PluginConfig
from ldmctl.errors import MissingError

from ._dinov2 import GATED, SIZES, VisionTransformer
from ._fidelity import FILTER, as_colour, library
from ._weights import WITHOUT, find

URL = "https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth"
SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what it was trained with


class DinoV2(nn.Module):
    """The class token, which torch-fidelity calls the feature `dinov2`."""

    resize = f"{SIDE}x{SIDE} by {FILTER}"

    class Config(PluginConfig):
        network: Literal["dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "dinov2-vit-g-14"] = Field(
            "dinov2-vit-l-14", description="which size; the large one is what is published"
        )
        weights: str | None = Field(
            None, description="Meta's file of it without registers, such as dinov2_vitl14_pretrain.pth; null: looked for, then downloaded"
        )

    def __init__(self, config: Config, *, image_channels: int, size: int, classes: Sequence[str] = (), encoder: Any = None):
        super().__init__()
        check_channels("dinov2", image_channels)
        module, self.title = library("feature_extractor_dinov2"), config.network
        self.resized = module.interpolate_bilinear_2d_like_tensorflow1x
        name = module.MODEL_METADATA[config.network]
        file = find(f"{name}_pretrain.pth", url=URL.format(name=name), sha256=None, given=config.weights)
        with torch.device("meta"):
            width, depth = SIZES[config.network]
            self.network = VisionTransformer(width, depth, gated=config.network == GATED)
        try:
            fill(self.network, file, {name: name for name in self.network.state_dict()}, f"Meta's weights of {config.network}")
        except MissingError as error:
            raise MissingError(f"{error}\nWays out:\n  another file in extractor.weights\n  or {WITHOUT}") from None
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> DinoV2:
        """Stays in evaluation, whatever the module that holds it is told."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B,C,size,size] -> features [B,D] float32."""
        seen = self.resized(as_colour(image).float(), size=(SIDE, SIDE), align_corners=False)
        return self.network((seen - self.mean) / self.deviation)
