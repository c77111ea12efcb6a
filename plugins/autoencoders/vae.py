"""A variational autoencoder: every picture becomes a small Gaussian, drawn from afresh each time (Kingma and Welling, arXiv:1312.6114).

Names and arithmetic are those of diffusers' AutoencoderKL.
"""

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from ldmctl.blocks import Decoder, Encoder
from ldmctl.config import PluginConfig
from ldmctl.protocols import Reconstruction


class VAE(nn.Module):
    rescale = "channel"

    class Config(PluginConfig):
        channels: PositiveInt = Field(4, description="latent channels")
        widths: list[PositiveInt] = Field(
            [64, 128, 256], min_length=1, description="channels at each resolution; each entry after the first halves the map"
        )
        layers: PositiveInt = Field(2, description="residual blocks per resolution in the encoder; the decoder has one more")
        norm_groups: PositiveInt = Field(
            32, description="groups of every GroupNorm, taken down to the greatest common divisor with all widths"
        )
        attention: bool = Field(True, description="self-attention at the smallest map")
        kl_weight: float = Field(
            1e-6, ge=0, description="weight of the Kullback-Leibler divergence to the standard normal, in nats per latent element"
        )

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = config.channels
        self.factor = 2 ** (len(config.widths) - 1)
        self.kl_weight = config.kl_weight
        shape = {"layers": config.layers, "norm_groups": config.norm_groups, "attention": config.attention}
        self.encoder = Encoder(image_channels, config.widths, 2 * config.channels, **shape)
        self.decoder = Decoder(config.channels, config.widths, image_channels, **shape)
        self.quant_conv = nn.Conv2d(2 * config.channels, 2 * config.channels, 1)
        self.post_quant_conv = nn.Conv2d(config.channels, config.channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> moments [B,2c,h,w]: mean, then log-variance."""
        return self.quant_conv(self.encoder(image)).to(image.dtype)

    def draw(self, moments: Tensor, generator: Generator | None = None) -> Tensor:
        """moments [B,2c,h,w] -> latent [B,c,h,w], a sample of the Gaussian; the noise is made where the generator lives."""
        mean, logvar = self._gaussian(moments)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device if generator is None else generator.device)
        return (mean + torch.exp(logvar / 2) * noise.to(mean.device)).to(moments.dtype)

    def mode(self, moments: Tensor) -> Tensor:
        """moments [B,2c,h,w] -> latent [B,c,h,w], the mean of the Gaussian."""
        return moments.chunk(2, dim=1)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """latent [B,c,h,w] -> image [B,C,H,W]."""
        return self.decoder(self.post_quant_conv(latent)).to(latent.dtype)

    def forward(self, image: Tensor, generator: Generator | None = None) -> Reconstruction:
        """image [B,C,H,W] -> its reconstruction from one draw, with the divergence as penalty."""
        moments = self.encode(image)
        latent = self.draw(moments, generator)
        mean, logvar = self._gaussian(moments)
        divergence = (mean.square() + logvar.exp() - 1 - logvar) / 2
        pixels = image.shape[0] * image.shape[2] * image.shape[3]
        seen = latent.detach().float()
        facts = {
            "kl_per_pixel": divergence.detach().sum() / pixels,  # nats
            "latent_deviation": seen.std(correction=0),
            "latent_max": seen.abs().amax(),
        }
        return Reconstruction(self.decode(latent), {"kl": self.kl_weight * divergence.mean()}, facts)

    def _gaussian(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance in float32, the latter kept where its exponential is finite and not zero."""
        mean, logvar = moments.float().chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)
