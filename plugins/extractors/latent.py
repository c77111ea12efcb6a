"""The run's own encoder: a picture's latent, whitened, averaged over places until it is small. No weights, no labels, no network of others.

Pictures that the autoencoder cannot tell apart are the same to it, so it says
how well the denoiser does what it was trained for, and nothing of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.errors import ConfigError


class Latent(nn.Module):
    """Latents at `grid` x `grid` places, flattened: D = channels x grid x grid."""

    class Config(PluginConfig):
        grid: PositiveInt = Field(8, description="places on a side that are kept of a larger latent, by averaging")

    def __init__(self, config: Config, *, image_channels: int, size: int, classes: Sequence[str] = (), encoder: Any = None):
        super().__init__()
        if encoder is None:
            raise ConfigError(
                "The extractor latent looks through a run's own encoder: name the run with --run, or take another --extractor."
            )
        self.grid, self.encoder, self.title = config.grid, encoder, "latent"
        self.resize = f"{size}x{size}, as they are"
        self.fingerprint = f"latent of {encoder.fingerprint}"

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B,C,size,size] -> features [B,D] float32."""
        latent = self.encoder(image)
        places = [min(side, self.grid) for side in latent.shape[-2:]]
        return F.adaptive_avg_pool2d(latent, places).flatten(1)
