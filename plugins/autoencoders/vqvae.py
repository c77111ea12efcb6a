"""An autoencoder whose latent is rounded to the nearest of a set of learned codes (van den Oord et al., arXiv:1711.00937).

Features stay continuous in the cache, unless it stores codes, and are quantized inside `decode`. Names and arithmetic are those of diffusers' VQModel, but for
`commitment`, which here weighs the term that it names.
"""

import math
from typing import Literal, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Generator, Tensor, nn

from ldmctl.blocks import Codebook, Decoder, Encoder
from ldmctl.config import Noted, PluginConfig
from ldmctl.protocols import Reconstruction

from ._keys import NORM, SHORTCUTS, Norm, shape_of


class VQVAE(nn.Module):
    rescale = "common"
    decoding = ("post_quant_conv", "decoder")

    class Config(PluginConfig):
        channels: PositiveInt = Field(4, description="latent channels, the length of a code")
        widths: list[PositiveInt] = Field(
            [64, 128, 256], min_length=1, max_length=8, description="channels at each resolution; each entry after the first halves the map"
        )
        layers: PositiveInt = Field(2, description="residual blocks per resolution in the encoder; the decoder has one more")
        norm: Norm = Field("group", description=NORM)
        norm_groups: PositiveInt = Field(
            32, description="groups of every GroupNorm where norm=group, taken down to the greatest common divisor with all widths"
        )
        attention: bool = Field(True, description="self-attention at the smallest map")
        shortcuts: bool = Field(False, description=SHORTCUTS)
        codebook_size: int = Field(512, ge=2, description="number of codes")
        commitment: float = Field(
            0.25,
            ge=0,
            description="beta, the weight of the term that pulls the encoder to the codes; codes are pulled with weight 1",
            json_schema_extra=Noted,
        )
        learning: Literal["gradient", "ema"] = Field(
            "gradient", description="how codes learn: by gradient, or as moving averages of the features that are nearest to them"
        )
        decay: float = Field(
            0.99, ge=0, lt=1, description="share that learning=ema keeps of its averages from one step to the next", json_schema_extra=Noted
        )
        kmeans: NonNegativeInt = Field(
            0,
            description="first steps whose features are kept, up to 128 per code, for k-means to place the codes after the last of them; 0: never",
        )
        revive: NonNegativeInt = Field(
            25,
            description="steps after which an unused code is moved to a feature of the last batch (sooner in the first steps); 0: never",
        )
        unit_length: bool = Field(
            False, description="features and codes are scaled to norm 1, so that directions are compared (arXiv:2110.04627)"
        )
        gradient: Literal["straight-through", "rotation"] = Field(
            "straight-through",
            description="what features get of the gradient of their codes: all as it is, or turned and scaled with them (arXiv:2410.06424)",
        )

        @model_validator(mode="after")
        def _directions_need_a_plane(self) -> Self:
            if self.unit_length and self.channels == 1:
                raise ValueError("unit_length leaves one channel two values, -1 and 1; take channels of 2 or more, or unit_length=false")
            return self

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = config.channels
        self.factor = 2 ** (len(config.widths) - 1)
        self.commitment = config.commitment
        self.code_count = config.codebook_size
        self.learns_by_gradient = config.learning == "gradient"
        shape = shape_of(config)
        self.encoder = Encoder(image_channels, config.widths, config.channels, **shape)
        self.decoder = Decoder(config.channels, config.widths, image_channels, **shape)
        self.quant_conv = nn.Conv2d(config.channels, config.channels, 1)
        self.quantize = Codebook(
            config.codebook_size,
            config.channels,
            learning=config.learning,
            decay=config.decay,
            kmeans=config.kmeans,
            revive=config.revive,
            unit_length=config.unit_length,
            gradient=config.gradient,
        )
        self.post_quant_conv = nn.Conv2d(config.channels, config.channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> features [B,c,h,w], not yet quantized; of norm 1 with `unit_length`."""
        return self.quantize.prepare(self.quant_conv(self.encoder(image))).to(image.dtype)

    def draw(self, moments: Tensor, generator: Generator | None = None) -> Tensor:
        """The features themselves: encoding is deterministic."""
        return moments

    def decode(self, latent: Tensor) -> Tensor:
        """features [B,c,h,w] -> image [B,C,H,W] of their nearest codes."""
        return self._picture(self.quantize.quantize(latent))

    def forward(self, image: Tensor, generator: Generator | None = None) -> Reconstruction:
        """image [B,C,H,W] -> its reconstruction, with the commitment and codebook penalties."""
        features = self.encode(image)
        quantized = self.quantize(features)
        seen = features.detach().float()
        facts = {
            "codes_counts": quantized.counts,
            "quantization_error": quantized.codebook.detach()
            / seen.var((0, 2, 3), correction=0).mean(),  # share of the variance that rounding loses
            "latent_deviation": seen.std(correction=0),
            "latent_max": seen.abs().amax(),
        }
        penalties = {"commitment": self.commitment * quantized.commitment}
        if self.learns_by_gradient:
            penalties["codebook"] = quantized.codebook
        return Reconstruction(self._picture(quantized.latent), penalties, facts)

    def after_step(self) -> dict[str, Tensor]:
        """Moves codes that fell out of use, and what else gradients do not teach them; names the rows that start over."""
        return {f"quantize.{name}": rows for name, rows in self.quantize.after_step().items()}

    def codes(self, moments: Tensor) -> Tensor:
        """features [B,c,h,w] -> indices [B,h,w] of their nearest codes."""
        return self.quantize.nearest(moments)

    def lookup(self, codes: Tensor) -> Tensor:
        """indices [B,h,w] -> codes [B,c,h,w], which decode to the same picture as the features they stand for."""
        return self.quantize.lookup(codes)

    def bits(self, moments: Tensor) -> Tensor:
        """features [B,c,h,w] -> [B], what the indices of a picture's codes cost when all codes are as likely."""
        return moments.new_full((len(moments),), math.log2(self.code_count) * moments.shape[2] * moments.shape[3], dtype=torch.float32)

    @property
    def last_layer(self) -> Tensor:
        """The weight that makes the picture."""
        return self.decoder.conv_out.weight

    def _picture(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent)).to(latent.dtype)
