"""A U-Net: down to small maps and up again, with skips between equal sizes (Ho et al., arXiv:2006.11239, appendix B).

Names and arithmetic are those of diffusers' UNet2DModel; where there are tokens to listen to, those of UNet2DConditionModel with
`use_linear_projection=True`, whose attention_head_dim is a number of heads: width / head_dim. Maps of odd size are rounded up on the way down, and on the way up take
the size of the skip they meet.
"""

import math
from typing import Self

import torch.nn.functional as F
from pydantic import Field, PositiveInt, StrictBool, model_validator
from torch import Tensor, nn

from ldmctl.blocks import (
    Attention,
    DownBlock,
    MidBlock,
    ResnetBlock,
    SpatialTransformer,
    TimestepEmbedding,
    UpBlock,
    group_norm,
    heard_tokens,
    join_maps,
)
from ldmctl.config import Noted, PluginConfig
from ldmctl.protocols import Condition

EPS = 1e-5


class UNet(nn.Module):
    class Config(PluginConfig):
        widths: list[PositiveInt] = Field(
            [128, 256, 256], min_length=1, description="channels at each resolution; each entry after the first halves the map"
        )
        layers: PositiveInt = Field(2, description="residual blocks per resolution on the way down; one more on the way up")
        attention: list[StrictBool] | None = Field(
            None,
            description="whether each resolution has attention, of pixels to each other and to words where there are any; "
            "null: all but the first. The middle always has it",
        )
        head_dim: PositiveInt = Field(8, description="channels of one attention head; divides the widths that have attention")
        norm_groups: PositiveInt = Field(
            32, description="groups of every GroupNorm, taken down to the greatest common divisor with all widths"
        )
        dropout: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="share of the features dropped in training before the second convolution of each block",
            json_schema_extra=Noted,
        )

        @property
        def attended(self) -> list[bool]:
            """Whether each resolution has self-attention."""
            return [level > 0 for level in range(len(self.widths))] if self.attention is None else self.attention

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if len(self.attended) != len(self.widths):
                raise ValueError(f"attention speaks of {len(self.attended)} resolutions, widths of {len(self.widths)}")
            for width, attends in zip(self.widths, [*self.attended[:-1], True], strict=True):
                if attends and width % self.head_dim:
                    raise ValueError(f"head_dim={self.head_dim} does not divide the width {width}, which has attention")
            return self

    def __init__(
        self, config: Config, *, channels: int, size: tuple[int, int], vector_dim: int = 0, token_dim: int = 0, map_channels: int = 0
    ):
        super().__init__()
        widths, layers = config.widths, config.layers
        time_width = 4 * widths[0]
        groups = math.gcd(config.norm_groups, *widths)
        shape = {"time_width": time_width, "norm_groups": groups, "eps": EPS, "dropout": config.dropout, "token_dim": token_dim}
        heads = [width // config.head_dim if attends else 0 for width, attends in zip(widths, config.attended, strict=True)]
        last = len(widths) - 1

        self.map_channels, self.token_dim = map_channels, token_dim
        self.conv_in = nn.Conv2d(channels + map_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], time_width)
        self.vector_embedding = nn.Linear(vector_dim, time_width) if vector_dim else None
        self.down_blocks = nn.ModuleList(
            DownBlock(widths[max(level - 1, 0)], width, layers=layers, last=level == last, heads=heads[level], **shape)
            for level, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], heads=widths[-1] // config.head_dim, **shape)
        self.up_blocks = nn.ModuleList(
            UpBlock(_joined(widths, level, layers), widths[level], last=level == 0, heads=heads[level], **shape)
            for level in range(last, -1, -1)
        )
        self.conv_norm_out = group_norm(widths[0], groups, EPS)
        self.conv_out = nn.Conv2d(widths[0], channels, 3, padding=1)
        self._start_at_zero()

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition | None = None) -> Tensor:
        """x [B,c,h,w], timestep [B] -> prediction [B,c,h,w]; a condition's vector joins the time, its maps join x (zeros when missing).

        Its tokens are attended to; where there are none, in a row or at all, a bias is added that is the same for all pixels.
        """
        time = self.time_embedding(timestep)
        if self.vector_embedding is not None and condition is not None and condition.vector is not None:
            time = time + self.vector_embedding(condition.vector)

        heard = heard_tokens(x, self.token_dim, condition) if self.token_dim else ()
        hidden = self.conv_in(join_maps(x, self.map_channels, condition))
        skips = [hidden]
        for block in self.down_blocks:
            skips += block(skips[-1], time, *heard)
        hidden = self.mid_block(skips[-1], time, *heard)
        for block in self.up_blocks:
            taken = len(block.resnets)
            met, skips = skips[-taken:], skips[:-taken]
            hidden = block(hidden, met, time, skips[-1].shape[-2:] if skips else None, *heard)
        return self.conv_out(F.silu(self.conv_norm_out(hidden))).to(x.dtype)

    def _start_at_zero(self) -> None:
        """Zeroes what each residual branch and the whole network end in, which trains faster from the first steps on."""
        ends = [self.conv_out]
        ends += [module.conv2 for module in self.modules() if isinstance(module, ResnetBlock)]
        ends += [module.to_out[0] for module in self.modules() if isinstance(module, Attention)]
        ends += [end for module in self.modules() if isinstance(module, SpatialTransformer) for end in module.ends()]
        for layer in ends:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def _joined(widths: list[int], level: int, layers: int) -> list[int]:
    """Input widths of the blocks of one level on the way up: what comes from below, each with the skip it meets."""
    width, below, above = widths[level], widths[min(level + 1, len(widths) - 1)], widths[max(level - 1, 0)]
    return [below + width] + [2 * width] * (layers - 1) + [width + above]
