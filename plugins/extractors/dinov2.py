"""DINOv2 as torch-fidelity sees pictures with it: features learned without labels, which rank samples much as people do.

Stein et al. (arXiv:2306.04675) found so for the Frechet distance of ViT-L/14. Theirs
resizes by an antialiased bicubic filter and torch-fidelity's by TensorFlow's
bilinear one: name the library beside the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmctl.blocks import check_channels
from ldmctl.config import PluginConfig
from ldmctl.errors import MissingError
from ldmctl.storage.assets import offline

from ._fidelity import as_colour, library, made
from ._weights import WITHOUT

REPOSITORY = "facebookresearch_dinov2_main"  # as torch.hub names its copy


class DinoV2(nn.Module):
    """The class token of torch-fidelity's DINOv2, whose code and weights torch.hub keeps, or downloads once."""

    class Config(PluginConfig):
        network: Literal["dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "dinov2-vit-g-14"] = Field(
            "dinov2-vit-l-14", description="which size; the large one is what is published"
        )

    def __init__(self, config: Config, *, image_channels: int, size: int, classes: Sequence[str] = (), encoder: Any = None):
        super().__init__()
        check_channels("dinov2", image_channels)
        module, hub, self.title = library("feature_extractor_dinov2"), Path(torch.hub.get_dir()), config.network
        file = hub / "checkpoints" / f"{module.MODEL_METADATA[config.network]}_pretrain.pth"
        if offline() and not (file.is_file() and (hub / REPOSITORY).is_dir()):
            raise MissingError(
                f"The weights {file.name} and the code of DINOv2 are missing. Downloads are switched off (LDMCTL_OFFLINE or --offline).\n"
                f"Looked for:\n  {file}\n  {hub / REPOSITORY}\nWays out:\n  unset LDMCTL_OFFLINE and leave out --offline\n"
                f"  or copy both from a machine on which torch.hub.load('facebookresearch/dinov2', ...) has run\n  or {WITHOUT}"
            )
        self.network = made(f"DINOv2 ({config.network})", lambda: module.FeatureExtractorDinoV2(config.network, ["dinov2"]))

    def train(self, mode: bool = True) -> DinoV2:
        """Stays in evaluation, whatever the module that holds it is told."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B,C,size,size] -> features [B,D] float32."""
        return self.network(as_colour(image))[0]
