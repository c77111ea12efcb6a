"""What is left of a picture around a hole: its latent with the hole at 0, and the mask of the hole (arXiv:2112.10752, section 4.5).

Most holes of training are the whole picture, so the same model still samples freely. Holes are drawn in latent cells. A cell beside a hole
was encoded with the hole's pixels in view; when a person's picture is repainted the hole is blank before it is encoded, and a
cell beside it has seen the blank instead. So `encode` hides `grow` more cells around every hole: what is left has seen real
pixels only, in training and in sampling.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator
from torch import Generator, Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.protocols import Condition

from ._holes import free_shapes, half_planes, rectangles, strokes


class Inpaint(nn.Module):
    listens = "picture"
    wants = "latent"
    vector_dim = 0
    token_dim = 0

    class Config(PluginConfig):
        full: float = Field(0.75, ge=0, le=1, description="share of training pictures of which nothing is given")
        rectangles: NonNegativeFloat = Field(1.0, description="how often a hole is a rectangle, in proportion to the other kinds")
        half_planes: NonNegativeFloat = Field(1.0, description="how often it is all on one side of a line, in proportion")
        strokes: NonNegativeFloat = Field(1.0, description="how often it is painted by a brush, in proportion")
        free_shapes: NonNegativeFloat = Field(1.0, description="how often it has any shape, in proportion")
        inverted: float = Field(0.25, ge=0, le=1, description="share of holes that are turned inside out: only the hole is given")
        grow: NonNegativeInt = Field(1, description="latent cells around a hole that are hidden with it")

        @model_validator(mode="after")
        def _some_kind(self) -> "Inpaint.Config":
            if self.full < 1 and not any(self._proportions()):
                raise ValueError(
                    "rectangles, half_planes, strokes and free_shapes are all 0: no hole can be drawn; take full=1, or give one"
                )
            return self

        def _proportions(self) -> list[float]:
            return [self.rectangles, self.half_planes, self.strokes, self.free_shapes]

    def __init__(
        self,
        config: Config,
        *,
        channels: int,
        size: Sequence[int],
        image_channels: int | None = None,
        factor: int | None = None,
        side: int | None = None,
    ):
        super().__init__()
        self.config, self.size, self.map_channels = config, tuple(size), channels + 1
        absent = torch.zeros(self.map_channels, 1, 1)
        absent[-1] = 1
        self.register_buffer("absent", absent, persistent=False)

    def draw(self, latent: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Clean latents [B,c,h,w] -> the same, and masks [B,1,h,w] of holes drawn for training, 1 where the picture is to be painted."""
        count, size, config = len(latent), latent.shape[2:], self.config
        holes = [draw(count, size[0], size[1], generator) for draw in (rectangles, half_planes, strokes, free_shapes)]
        proportions = torch.tensor(config._proportions(), device=generator.device)
        kinds = torch.multinomial(proportions if proportions.any() else proportions + 1, count, replacement=True, generator=generator)
        full, inside_out = torch.rand(2, count, 1, 1, generator=generator, device=generator.device)
        hole = torch.stack(holes)[kinds, torch.arange(count, device=kinds.device)]
        hole = (hole ^ (inside_out < config.inverted)) | (full < config.full)
        return {"latent": latent, "mask": hole[:, None].to(latent)}

    def encode(self, given: dict[str, Tensor]) -> Condition:
        """latent [B,c,h,w] and mask [B,1,h,w], 1 where it is to be painted -> maps [B,c+1,h,w]: what is left of it, and what is hidden."""
        latent, mask = (given[name].to(self.absent.device) for name in ("latent", "mask"))
        hidden = F.max_pool2d(mask.to(latent.dtype), 2 * self.config.grow + 1, stride=1, padding=self.config.grow)
        return Condition(maps=torch.cat([latent * (1 - hidden), hidden], dim=1))

    def null(self, count: int, *, size: tuple[int, int] | None = None) -> Condition:
        """`count` times a picture of which nothing is given."""
        return Condition(maps=self.absent.expand(count, -1, *(size or self.size)))
