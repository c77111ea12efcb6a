"""An autoencoder whose latent is rounded to the nearest of a set of learned codes (van den Oord et al., arXiv:1711.00937).

Features stay continuous in the cache and are quantized inside `decode`. Names and arithmetic are those of diffusers' VQModel, but for
`commitment`, which here weighs the term that it names.
"""

from collections.abc import Sequence

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Generator, Tensor, nn

from ldmctl.blocks import Codebook, Decoder, Encoder
from ldmctl.config import PluginConfig
from ldmctl.protocols import Reconstruction


class VQVAE(nn.Module):
    rescale = "common"

    class Config(PluginConfig):
        channels: PositiveInt = Field(4, description="latent channels, the length of a code")
        widths: list[PositiveInt] = Field(
            [64, 128, 256], min_length=1, description="channels at each resolution; each entry after the first halves the map"
        )
        layers: PositiveInt = Field(2, description="residual blocks per resolution in the encoder; the decoder has one more")
        norm_groups: PositiveInt = Field(
            32, description="groups of every GroupNorm, taken down to the greatest common divisor with all widths"
        )
        attention: bool = Field(True, description="self-attention at the smallest map")
        codebook_size: int = Field(512, ge=2, description="number of codes")
        commitment: float = Field(
            0.25, ge=0, description="beta, the weight of the term that pulls the encoder to the codes; codes are pulled with weight 1"
        )
        revive: NonNegativeInt = Field(
            25,
            description="steps after which an unused code is moved to a feature of the last batch (sooner in the first steps); 0: never",
        )

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = config.channels
        self.factor = 2 ** (len(config.widths) - 1)
        self.commitment = config.commitment
        shape = {"layers": config.layers, "norm_groups": config.norm_groups, "attention": config.attention}
        self.encoder = Encoder(image_channels, config.widths, config.channels, **shape)
        self.decoder = Decoder(config.channels, config.widths, image_channels, **shape)
        self.quant_conv = nn.Conv2d(config.channels, config.channels, 1)
        self.quantize = Codebook(config.codebook_size, config.channels, revive=config.revive)
        self.post_quant_conv = nn.Conv2d(config.channels, config.channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> features [B,c,h,w], not yet quantized."""
        return self.quant_conv(self.encoder(image)).to(image.dtype)

    def draw(self, moments: Tensor, generator: Generator | None = None) -> Tensor:
        """The features themselves: encoding is deterministic."""
        return moments

    def decode(self, latent: Tensor) -> Tensor:
        """features [B,c,h,w] -> image [B,C,H,W] of their nearest codes."""
        return self._picture(self.quantize(latent).latent)

    def forward(self, image: Tensor, generator: Generator | None = None) -> Reconstruction:
        """image [B,C,H,W] -> its reconstruction, with the commitment and codebook penalties."""
        features = self.encode(image)
        quantized = self.quantize(features)
        shares = quantized.counts / quantized.codes.numel()
        variance = features.detach().float().var((0, 2, 3), correction=0).mean()
        facts = {
            "codes_counts": quantized.counts,
            "perplexity": shares.mul((shares + 1e-10).log()).sum().neg().exp(),  # of this batch
            "quantization_error": quantized.codebook.detach() / variance,  # share of the variance that rounding loses
        }
        penalties = {"commitment": self.commitment * quantized.commitment, "codebook": quantized.codebook}
        return Reconstruction(self._picture(quantized.latent), penalties, facts)

    def after_step(self) -> Sequence[str]:
        """Moves codes that fell out of use; names them when it did."""
        return [f"quantize.{name}" for name in self.quantize.after_step()]

    def codes(self, moments: Tensor) -> Tensor:
        """features [B,c,h,w] -> indices [B,h,w] of their nearest codes."""
        return self.quantize.nearest(moments)

    def lookup(self, codes: Tensor) -> Tensor:
        """indices [B,h,w] -> codes [B,c,h,w], which decode to the same picture as the features they stand for."""
        return self.quantize.lookup(codes)

    def _picture(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent)).to(latent.dtype)
