"""No autoencoder: pictures are their own latents, so a diffusion model learns pixels."""

from torch import Generator, Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.protocols import Reconstruction


class Identity(nn.Module):
    factor = 1
    rescale = "channel"

    class Config(PluginConfig):
        pass

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = image_channels

    def encode(self, image: Tensor) -> Tensor:
        """The image itself [B,C,H,W]."""
        return image

    def draw(self, moments: Tensor, generator: Generator | None = None) -> Tensor:
        """The moments themselves [B,C,H,W]."""
        return moments

    def decode(self, latent: Tensor) -> Tensor:
        """The latent itself [B,C,H,W]."""
        return latent

    def forward(self, image: Tensor, generator: Generator | None = None) -> Reconstruction:
        """The image itself, without penalties."""
        return Reconstruction(image, penalties={}, facts={})
