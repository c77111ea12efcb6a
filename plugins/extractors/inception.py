"""Inception v3 as the first FID had it, by torch-fidelity: TensorFlow's weights and TensorFlow's bilinear resize to 299 x 299.

A Frechet distance in these features is the Frechet Inception Distance (FID, Heusel
et al., arXiv:1706.08500), a polynomial kernel distance the Kernel Inception
Distance (KID). Published ones are of 50,000 samples against the whole training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from ldmctl.blocks import check_channels
from ldmctl.config import PluginConfig

from ._fidelity import FILTER, as_colour, library, made, pickled
from ._weights import find

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"


class Inception(nn.Module):
    """The 2,048 pooled features of torch-fidelity's `inception-v3-compat`."""

    title = "inception-v3-compat"
    frechet = "FID"  # what people call these distances
    kernel = "KID"
    resize = f"299x299 by {FILTER}"

    class Config(PluginConfig):
        weights: str | None = Field(None, description=f"torch-fidelity's {FILE}; null: looked for, then downloaded")

    def __init__(self, config: Config, *, image_channels: int, size: int, classes: Sequence[str] = (), encoder: Any = None):
        super().__init__()
        check_channels("inception", image_channels)
        network = library("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
        file = find(FILE, url=URL, sha256="6726825d", given=config.weights)
        what = "torch-fidelity's weights of Inception"
        pickled(file, what)
        self.network = made(what, lambda: network("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)), file)

    def train(self, mode: bool = True) -> Inception:
        """Stays in evaluation, whatever the module that holds it is told."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B,C,size,size] -> features [B,2048] float32."""
        return self.network(as_colour(image))[0]
