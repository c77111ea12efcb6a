"""OpenAI's CLIP as torch-fidelity sees pictures with it: features that were learned from captions (arXiv:2103.00020).

A Gaussian kernel distance in them is close to CMMD (arXiv:2401.09603), which takes
ViT-L/14 at 336 pixels, unit-length features and a standard deviation of 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from ldmctl.blocks import check_channels
from ldmctl.config import PluginConfig

from ._fidelity import FILTER, as_colour, library, made
from ._weights import find


class Clip(nn.Module):
    """What torch-fidelity calls the feature `clip`."""

    class Config(PluginConfig):
        network: Literal["clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14", "clip-vit-l-14-336px", "clip-rn50"] = Field(
            "clip-vit-b-32", description="which of OpenAI's networks"
        )
        weights: str | None = Field(None, description="OpenAI's file of it, such as ViT-B-32.pt; null: looked for, then downloaded")

    def __init__(self, config: Config, *, image_channels: int, size: int, classes: Sequence[str] = (), encoder: Any = None):
        super().__init__()
        check_channels("clip", image_channels)
        module = library("feature_extractor_clip")
        published, url = module.MODEL_METADATA[config.network], module.MODEL_URLS[config.network]
        file = find(f"{published['filename']}.pt", url=url, sha256=published["hash"], given=config.weights)
        self.title, what = config.network, f"OpenAI's weights of {config.network}"
        self.network = made(
            what, lambda: module.FeatureExtractorCLIP(config.network, ["clip"], feature_extractor_weights_path=str(file)), file
        )
        self.resize = f"{self.network.resolution}x{self.network.resolution} by {FILTER}"
        self.eval()

    def train(self, mode: bool = True) -> Clip:
        """Stays in evaluation, whatever the module that holds it is told."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B,C,size,size] -> features [B,D] float32."""
        return self.network(as_colour(image))[0]
