"""An autoencoder whose latent is rounded to a fixed grid: finite scalar quantization (Mentzer et al., arXiv:2309.15505).

A code is a point of the grid, one number of `levels` values per channel. There
is no codebook to learn, so none can collapse, and there are no penalties.
Features stay continuous in the cache, unless it stores codes, and are rounded inside `decode`.
"""

import math

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Generator, Tensor, nn

from ldmctl.blocks import Decoder, Encoder
from ldmctl.config import PluginConfig
from ldmctl.protocols import Reconstruction

from ._keys import NORM, SHORTCUTS, Norm, shape_of

EPS = 1e-3  # of the paper: the outermost values are approached, and rounding still reaches them
MOST_CODES = 2**20  # the uses of each are counted


class FSQ(nn.Module):
    rescale = "channel"  # each channel is rounded alone: whatever deviation it is given in the cache, its nearest value stays the nearest
    decoding = ("decoder",)

    class Config(PluginConfig):
        levels: list[int] = Field(
            [8, 5, 5, 5], min_length=1, description="values of each latent channel, 2 to 512; their product is the number of codes"
        )
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

        @field_validator("levels")
        @classmethod
        def _makes_a_grid(cls, levels: list[int]) -> list[int]:
            if wrong := [each for each in levels if not 2 <= each <= 512]:
                raise ValueError(f"a channel of {wrong[0]} values cannot be rounded to; each entry is 2 to 512")
            if math.prod(levels) > MOST_CODES:
                raise ValueError(f"these are {math.prod(levels):,} codes; take fewer channels or values, for at most {MOST_CODES:,}")
            return levels

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = len(config.levels)
        self.code_count = math.prod(config.levels)
        self.factor = 2 ** (len(config.widths) - 1)
        shape = shape_of(config)
        self.encoder = Encoder(image_channels, config.widths, self.channels, **shape)
        self.decoder = Decoder(self.channels, config.widths, image_channels, **shape)
        self.grid = Grid(config.levels)

    @property
    def last_layer(self) -> Tensor:
        """The weight of the convolution that makes the picture."""
        return self.decoder.conv_out.weight

    def encode(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> features [B,c,h,w] in [-1, 1], not yet rounded."""
        return self.grid.bound(self.encoder(image)).to(image.dtype)

    def draw(self, moments: Tensor, generator: Generator | None = None) -> Tensor:
        """The features themselves: encoding is deterministic."""
        return moments

    def decode(self, latent: Tensor) -> Tensor:
        """features [B,c,h,w] -> image [B,C,H,W] of their nearest points of the grid."""
        return self.decoder(self.grid(latent)).to(latent.dtype)

    def forward(self, image: Tensor, generator: Generator | None = None) -> Reconstruction:
        """image [B,C,H,W] -> its reconstruction; a grid needs no penalties."""
        features = self.encode(image)
        return Reconstruction(self.decode(features), {}, self._facts(features.detach().float()))

    def codes(self, moments: Tensor) -> Tensor:
        """features [B,c,h,w] -> indices [B,h,w] of their nearest points, the first channel counting fastest."""
        return self.grid.index(moments)

    def lookup(self, codes: Tensor) -> Tensor:
        """indices [B,h,w] -> points [B,c,h,w], which decode to the same picture as the features they stand for."""
        return self.grid.points(codes)

    def bits(self, moments: Tensor) -> Tensor:
        """features [B,c,h,w] -> [B], log2 of the number of codes for each place of the map."""
        places = moments.shape[2] * moments.shape[3]
        return torch.full((len(moments),), places * math.log2(self.code_count), device=moments.device)

    def _facts(self, features: Tensor) -> dict[str, Tensor]:
        codes = self.grid.index(features).flatten()
        counts = torch.zeros(self.code_count, dtype=torch.int64, device=codes.device).scatter_add_(0, codes, torch.ones_like(codes))
        error, variance = (self.grid(features) - features).square().mean(), features.var((0, 2, 3), correction=0).mean()
        return {
            "codes_counts": counts,
            "perplexity": torch.special.entr(counts / codes.numel()).sum().exp(),  # of this batch
            "quantization_error": error / variance,  # share of the variance that rounding loses
            "latent_deviation": features.std(correction=0),
            "latent_max": features.abs().amax(),
        }


class Grid(nn.Module):
    """Points in [-1, 1]^c, `levels[i]` of them along channel i, 1 / (levels[i] // 2) apart; all in float32, whatever the autocast.

    The paper's appendix counts in steps of 1 before it divides: -2, -1, 0, 1, 2 for 5 levels. An even number of levels
    has no middle, and its grid reaches down to -1 but not up to 1: -4 ... 3 for 8 levels.
    """

    levels: Tensor
    reach: Tensor
    offset: Tensor
    shift: Tensor
    steps: Tensor
    basis: Tensor

    def __init__(self, levels: list[int]):
        super().__init__()
        count = torch.tensor(levels, dtype=torch.float64).view(1, -1, 1, 1)
        reach = (count - 1) * (1 - EPS) / 2
        offset = torch.where(count % 2 == 0, 0.5, 0.0)
        shift = torch.tan(offset / reach)  # puts 0 near a point; the paper's tan, where atanh would be exact but has no value for 2 levels
        for name, value in {"reach": reach, "offset": offset, "shift": shift, "steps": count // 2}.items():
            self.register_buffer(name, value.float(), persistent=False)
        self.register_buffer("levels", count.long(), persistent=False)
        self.register_buffer("basis", (count.cumprod(1) / count).long(), persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """Any numbers [B,c,h,w] -> [-1, 1], where each point of the grid has its share."""
        return (torch.tanh(z.float() + self.shift) * self.reach - self.offset) / self.steps

    def forward(self, features: Tensor) -> Tensor:
        """[B,c,h,w] -> exactly the nearest points; the gradient goes to the features."""
        z = features.float()
        points = self._counted(z) / self.steps
        return (points.detach() + (z - z.detach())).to(features.dtype)  # straight-through

    def index(self, features: Tensor) -> Tensor:
        """[B,c,h,w] -> int64 [B,h,w]; what is not a number counts as 0, so that a step that diverged is skipped and not a crash."""
        digits = (self._counted(features.float()).nan_to_num(0.0) + self.steps).long()
        return (digits * self.basis).sum(1)

    def points(self, codes: Tensor) -> Tensor:
        """[B,h,w] -> [B,c,h,w]."""
        digits = codes.long()[:, None] // self.basis % self.levels
        return (digits - self.steps) / self.steps

    def _counted(self, features: Tensor) -> Tensor:
        """The nearest points in whole steps from 0; features beyond the grid, such as a denoiser's, go to its edge."""
        return (features.detach() * self.steps).round().clamp(-self.steps, self.levels - 1 - self.steps)
