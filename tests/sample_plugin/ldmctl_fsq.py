"""An autoencoder whose latent is rounded to a small grid (finite scalar quantization, arXiv:2309.15505)."""

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from ldmctl.blocks import Decoder, Encoder
from ldmctl.config import PluginConfig
from ldmctl.protocols import Reconstruction


class FSQ(nn.Module):
    rescale = "common"  # one divisor for all channels, so that the nearest grid point stays the nearest

    class Config(PluginConfig):
        levels: int = Field(8, ge=2, description="grid points per latent channel")
        channels: PositiveInt = Field(4, description="latent channels")
        widths: list[PositiveInt] = Field([64, 128, 256], min_length=1, description="channels at each resolution")

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = config.channels
        self.factor = 2 ** (len(config.widths) - 1)
        self.scale = (config.levels - 1) / 2
        self.encoder = Encoder(image_channels, config.widths, config.channels)
        self.decoder = Decoder(config.channels, config.widths, image_channels)

    def encode(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> features [B,c,h,w] in (-1, 1), not yet rounded."""
        return torch.tanh(self.encoder(image))

    def draw(self, moments: Tensor, generator: Generator | None = None) -> Tensor:
        """The features themselves: encoding is deterministic."""
        return moments

    def decode(self, latent: Tensor) -> Tensor:
        """features [B,c,h,w] -> image [B,C,H,W] of their grid points."""
        return self.decoder(self.rounded(latent))

    def forward(self, image: Tensor, generator: Generator | None = None) -> Reconstruction:
        """image [B,C,H,W] -> its reconstruction; a grid needs no penalties."""
        features = self.encode(image)
        error = (self.rounded(features) - features).detach().square().mean()
        return Reconstruction(self.decode(features), penalties={}, facts={"rounding_error": error})

    def rounded(self, latent: Tensor) -> Tensor:
        """[B,c,h,w] on the grid of `levels` points from -1 to 1."""
        grid = torch.round((latent.clamp(-1, 1) + 1) * self.scale) / self.scale - 1
        return latent + (grid - latent).detach()  # straight-through
