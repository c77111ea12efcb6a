"""A variational autoencoder: every picture becomes a small Gaussian, drawn from afresh each time (Kingma and Welling, arXiv:1312.6114).

Names and arithmetic are those of diffusers' AutoencoderKL.

The divergence to the standard normal is weighed as its mean over batch and
latent elements, the picture's losses as means over pixels and channels.
Where both are sums over a picture, as in latent-diffusion, a weight w there is
kl_weight = w * (c h w) / (C H W) here. With kl_weight as small as is usual,
latents are far from standard normal: decoded normal noise is noise, and
pictures are made by a diffusion model.
"""

import math
from typing import Any, Self

import torch
import torch.distributed as dist
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Generator, Tensor, nn

from ldmctl.blocks import Decoder, Encoder
from ldmctl.config import Noted, PluginConfig
from ldmctl.protocols import Reconstruction

from ._keys import NORM, SHORTCUTS, Norm, shape_of

RATE = 0.02  # largest change of the weight's logarithm in one step
SMALLEST, LARGEST = 1e-4, 1e6  # of the factor, so that a target out of reach can be left again


class VAE(nn.Module):
    rescale = "channel"
    decoding = ("post_quant_conv", "decoder")

    class Config(PluginConfig):
        channels: PositiveInt = Field(4, description="latent channels")
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
        kl_weight: float = Field(
            1e-6,
            ge=0,
            description="weight of the Kullback-Leibler divergence to the standard normal, in nats per latent element",
            json_schema_extra=Noted,
        )
        kl_warmup: NonNegativeInt = Field(0, description="steps over which the divergence's weight rises from 0; 0: off")
        kl_target: PositiveFloat | None = Field(
            None, description="nats per pixel that the divergence is steered to, by a weight that starts at kl_weight; null: off"
        )

        @model_validator(mode="after")
        def _has_a_weight_to_move(self) -> Self:
            if self.kl_target is not None and self.kl_weight == 0:
                raise ValueError("kl_target multiplies kl_weight, which is 0: give kl_weight a value to start from, such as 1e-3")
            return self

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = config.channels
        self.factor = 2 ** (len(config.widths) - 1)
        self.kl_weight = config.kl_weight
        shape = shape_of(config)
        self.encoder = Encoder(image_channels, config.widths, 2 * config.channels, **shape)
        self.decoder = Decoder(config.channels, config.widths, image_channels, **shape)
        self.quant_conv = nn.Conv2d(2 * config.channels, 2 * config.channels, 1)
        self.post_quant_conv = nn.Conv2d(config.channels, config.channels, 1)
        moves = config.kl_warmup > 0 or config.kl_target is not None
        self.pressure = Pressure(config.kl_warmup, config.kl_target) if moves else None  # without it, the state is AutoencoderKL's

    @property
    def last_layer(self) -> Tensor:
        """The weight of the convolution that makes the picture."""
        return self.decoder.conv_out.weight

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
        """image [B,C,H,W] -> its reconstruction from one draw; the penalty is the mean divergence per latent element, weighted."""
        moments = self.encode(image)
        latent = self.draw(moments, generator)
        divergence = self._divergence(moments)
        per_element = divergence.mean()
        nats, pixels = divergence.detach().sum(), image.shape[0] * image.shape[2] * image.shape[3]
        seen = latent.detach().float()
        facts = {
            "kl_per_pixel": nats / pixels,  # nats, of the picture's pixels
            "kl_per_element": per_element.detach(),  # nats, of the latent's elements
            "latent_deviation": seen.std(correction=0),
            "latent_max": seen.abs().amax(),
        }
        weight: float | Tensor = self.kl_weight
        if self.pressure is not None:
            weight = facts["kl_weight"] = self.kl_weight * self.pressure()
            if self.training and divergence.requires_grad:
                self.pressure.note(nats, pixels)
        return Reconstruction(self.decode(latent), {"kl": weight * per_element}, facts)

    def after_step(self) -> list[str]:
        """Moves the divergence's weight, where there is a warm-up or a target."""
        if self.pressure is not None:
            self.pressure.after_step()
        return []

    def bits(self, moments: Tensor) -> Tensor:
        """moments [B,2c,h,w] -> divergence of each picture [B] in bits, summed over its latent."""
        return self._divergence(moments).sum((1, 2, 3)) / math.log(2)

    def _divergence(self, moments: Tensor) -> Tensor:
        """Nats of each latent element [B,c,h,w]; expm1 keeps their digits near 0, and them from falling below it."""
        mean, logvar = self._gaussian(moments)
        return (mean.square() + (logvar.expm1() - logvar)) / 2

    def _gaussian(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance in float32, the latter kept where its exponential is finite and not zero."""
        mean, logvar = moments.float().chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)


class Pressure(nn.Module):
    """What the divergence's weight is multiplied by, in the course of a training.

    It rises from 0 to 1 over `warmup` steps. From then on, where there is a
    target, every step multiplies it by exp(RATE * log(kl / target)), the
    logarithm held to [-1, 1]: more divergence than asked for raises the weight,
    less lowers it, and near the target it moves ever less. The measure is that
    of all micro-batches and ranks together, so neither changes it, which could
    not be said of the penalty |kl - target| (Burgess et al., arXiv:1804.03599);
    in a trial that one also missed the target with a small weight, and with one
    that was large enough cost half as much reconstruction error again.
    """

    steps: Tensor
    factor: Tensor

    def __init__(self, warmup: int, target: float | None):
        super().__init__()
        self.warmup, self.target = warmup, target
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # optimizer steps done
        self.register_buffer("factor", torch.ones(()))
        self.register_load_state_dict_post_hook(_forget)
        self._seen: Tensor | None = None  # nats and pixels since the last step

    def forward(self) -> Tensor:
        """The factor of this step, a scalar; a copy, since the state moves on before it is reported."""
        return self.factor * (self.steps / self.warmup).clamp(max=1) if self.warmup else self.factor.clone()

    def note(self, nats: Tensor, pixels: int) -> None:
        """What a micro-batch of this step diverges by."""
        seen = torch.stack([nats, torch.full_like(nats, pixels)])
        self._seen = seen if self._seen is None else self._seen + seen

    @torch.no_grad()
    def after_step(self) -> None:
        """Counts a step and, after the warm-up, moves the factor; a divergence that is not finite moves nothing."""
        seen, self._seen = self._seen, None
        if self.target is not None and seen is not None:
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(seen)
            excess = (seen[0] / seen[1] / self.target).log().clamp(-1, 1)
            moved = (self.factor * (RATE * excess).exp()).clamp(SMALLEST, LARGEST)
            self.factor.copy_(torch.where(seen.isfinite().all() & (self.steps >= self.warmup), moved, self.factor))
        self.steps += 1


def _forget(pressure: nn.Module, _: Any) -> None:
    """What was seen before a state was loaded, such as in a probe, does not move it."""
    assert isinstance(pressure, Pressure)
    pressure._seen = None
