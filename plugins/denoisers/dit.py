"""A diffusion transformer: the latent cut into patches, and attention between them (Peebles and Xie, arXiv:2212.09748).

With what has become usual since: rotary positions in both axes, RMSNorm, SwiGLU, normalised queries and keys, and attention to words
after that to the picture (PixArt-alpha, arXiv:2310.00426, section 2.3). Rotation tells
only how far tokens are from each other, so the sinusoids of the paper, added once, still say where in the picture
they are: what a picture looks like on average, all that can be known of pure noise, depends on that.
"""

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, StrictBool, model_validator
from torch import Tensor, nn

from ldmctl.blocks import (
    TimestepEmbedding,
    TransformerBlock,
    axial_rotary,
    axial_sinusoids,
    gated_width,
    heard_tokens,
    join_maps,
    modulated_norm,
    patchify,
    unpatchify,
)
from ldmctl.config import Noted, PluginConfig
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition

SINUSOIDS = 256  # numbers that the time is first written in, as in the paper
SMALL = 16  # latents of so many pixels a side have few enough for a token each


class DiT(nn.Module):
    positions: Tensor
    rotary: Tensor

    class Config(PluginConfig):
        width: PositiveInt = Field(384, description="length of a token, a multiple of head_dim")
        depth: PositiveInt = Field(12, description="blocks, each of attention and an MLP")
        head_dim: PositiveInt = Field(64, description="length of a token in one attention head, a multiple of 4")
        patch: PositiveInt | None = Field(
            None, description=f"side of the square of latent pixels that is one token; null: 1 for latents up to {SMALL} a side, else 2"
        )
        mlp: PositiveFloat = Field(4.0, description="size of each block's SwiGLU: that of a plain MLP so many times as wide as a token")
        shared: StrictBool = Field(
            False,
            description="one modulation by time and condition for all blocks, with an offset each, a third of the parameters less; "
            "false: each block its own, the only way in which classes reach it",
        )
        dropout: float = Field(
            0.0, ge=0, lt=1, description="share of what attention and MLP add that is dropped in training", json_schema_extra=Noted
        )

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.head_dim % 4:
                raise ValueError(
                    f"head_dim={self.head_dim} is not a multiple of 4: pairs of it are turned by the row, as many by the column"
                )
            if self.width % self.head_dim:
                raise ValueError(f"head_dim={self.head_dim} does not divide width={self.width}")
            return self

    def __init__(
        self, config: Config, *, channels: int, size: tuple[int, int], vector_dim: int = 0, token_dim: int = 0, map_channels: int = 0
    ):
        super().__init__()
        width = config.width
        self.token_dim = token_dim
        self.depth = config.depth
        self.patch = config.patch or (1 if max(size) <= SMALL else 2)
        self.grid = self._grid(*size)
        self.head_dim = config.head_dim
        self.map_channels = map_channels
        self.patch_embedding = nn.Linear((channels + map_channels) * self.patch**2, width)
        self.time_embedding = TimestepEmbedding(SINUSOIDS, width)
        self.vector_embedding = nn.Linear(vector_dim, width) if vector_dim else None
        self.token_embedding = nn.Linear(token_dim, width, bias=False) if token_dim else None
        self.modulation = nn.Linear(width, 6 * width) if config.shared else None
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                heads=width // config.head_dim,
                hidden=gated_width(width, config.mlp),
                shared=config.shared,
                dropout=config.dropout,
                listens=token_dim > 0,
            )
            for _ in range(config.depth)
        )
        self.modulation_out = nn.Linear(width, 2 * width)
        self.proj_out = nn.Linear(width, channels * self.patch**2)
        self.register_buffer("positions", axial_sinusoids(*self.grid, width), persistent=False)
        self.register_buffer("rotary", axial_rotary(*self.grid, config.head_dim), persistent=False)
        self._initialise()

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition | None = None) -> Tensor:
        """x [B,c,h,w], timestep [B] -> prediction [B,c,h,w]; a condition's vector joins the time, its maps join x (zeros when missing).

        Its tokens are attended to; where there are none, in a row or at all, nothing is added.
        """
        return self.forward_with_hidden(x, timestep, condition, block=self.depth)[0]

    def forward_with_hidden(self, x: Tensor, timestep: Tensor, condition: Condition | None = None, *, block: int) -> tuple[Tensor, Tensor]:
        """(what `forward` gives, the tokens [B,N,width] after so many blocks, row by row): for a loss on features (arXiv:2410.06940).

        Its authors compare block 8 of 28.

        N is rows * columns of `grid` for latents of the constructor's size. A block beyond the last one is a PluginError.
        """
        if not 0 <= block <= self.depth:
            raise PluginError(f"There is no hidden layer after block {block}: this dit has {self.depth}; 0 is the embedded patches.")
        height, width = x.shape[2:]
        grid = self._grid(height, width)
        positions, rotary = self._places(grid, x.device)
        signal = self._signal(timestep, condition)
        steering = signal if self.modulation is None else self.modulation(signal)

        padded = F.pad(join_maps(x, self.map_channels, condition), (0, grid[1] * self.patch - width, 0, grid[0] * self.patch - height))
        tokens = (self.patch_embedding(patchify(padded, self.patch)) + positions).to(x.dtype)
        hidden, heard = tokens, self._heard(x, condition)
        for number, each in enumerate(self.blocks, start=1):
            tokens = each(tokens, steering, rotary, *heard)
            hidden = tokens if number == block else hidden

        shift, scale = self.modulation_out(signal).float()[:, None].chunk(2, dim=2)
        out = unpatchify(self.proj_out(modulated_norm(tokens, shift, scale)), grid, self.patch)
        return out[:, :, :height, :width].to(x.dtype), hidden

    def _signal(self, timestep: Tensor, condition: Condition | None) -> Tensor:
        """What the blocks are steered by, [B,width]."""
        signal = self.time_embedding(timestep)
        if self.vector_embedding is not None and condition is not None and condition.vector is not None:
            signal = signal + self.vector_embedding(condition.vector)
        return F.silu(signal)

    def _heard(self, x: Tensor, condition: Condition | None) -> tuple[Tensor | None, ...]:
        """What the blocks attend to besides the picture, () where that is nothing: tokens [B,N,width] and their mask."""
        if self.token_embedding is None:
            return ()
        tokens, mask = heard_tokens(x, self.token_dim, condition)
        return self.token_embedding(tokens), mask

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of patches; what the last ones lack is padded with zeros."""
        return -(-height // self.patch), -(-width // self.patch)

    def _places(self, grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Tables of positions and rotations, kept for the constructor's size and made again for any other."""
        if grid == self.grid:
            return self.positions, self.rotary
        return axial_sinusoids(*grid, self.positions.shape[1], device), axial_rotary(*grid, self.head_dim, device)

    def _initialise(self) -> None:
        """Layers keep the size of what goes through them, but those that end in a gate or in the prediction, which start at 0.

        By their inputs alone: outputs that are several layers side by side would make Glorot's rule too small.
        """
        zero = [self.proj_out, self.modulation_out, *(block.modulation for block in self.blocks)]
        zero += [block.cross_attention.to_out for block in self.blocks if block.cross_attention is not None]
        zero += [] if self.modulation is None else [self.modulation]
        for layer in self.modules():
            if not isinstance(layer, nn.Linear):
                continue
            if layer in zero:
                nn.init.zeros_(layer.weight)
            else:
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
