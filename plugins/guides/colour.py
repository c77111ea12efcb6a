"""The mean colour of a picture, or of a part of it, towards a colour that is named."""

from pydantic import Field, PositiveFloat, field_validator
from torch import Tensor

from ldmctl.config import PluginConfig
from ldmctl.errors import ConfigError
from ldmctl.pictures.images import rgb

UNIT = 0.1  # of the range -1 to 1: how far off a mean colour may be at scale 1
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of colours


class Colour:
    """As if the mean colour of the region were known to 0.1, which is 13 of 255 levels; scale 4 halves that."""

    class Config(PluginConfig):
        colour: str = Field(description="a name such as red, or #rrggbb")
        region: tuple[float, float, float, float] = Field(
            (0.0, 0.0, 1.0, 1.0), description="left, top, right and bottom of the part that is meant, as shares of the picture"
        )
        scale: PositiveFloat = Field(1.0, le=1e15, description="how much it counts: the loss is multiplied by it")

        @field_validator("colour")
        @classmethod
        def _is_a_colour(cls, colour: str) -> str:
            try:
                rgb(colour)
            except ConfigError:
                raise ValueError("not a colour; write a name such as red, or #rrggbb") from None
            return colour

        @field_validator("region")
        @classmethod
        def _is_a_part(cls, region: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
            left, top, right, bottom = region
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError("left, top, right and bottom are shares from 0 to 1, such as [0, 0, 0.5, 1] for the left half")
            return region

    def __init__(self, config: Config, *, image_channels: int, **context: object):
        red, green, blue = (level / 127.5 - 1 for level in rgb(config.colour))
        grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        self.colour = [grey] if image_channels == 1 else [red, green, blue]
        self.region, self.scale = config.region, config.scale

    def loss(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> [B], 0 where the mean is the colour; a fourth channel does not count."""
        height, width = image.shape[2:]
        left, right = (round(share * width) for share in self.region[::2])
        top, bottom = (round(share * height) for share in self.region[1::2])
        top, left = min(top, height - 1), min(left, width - 1)  # a thin region is a row or a column at least
        part = image[:, :3, top : max(bottom, top + 1), left : max(right, left + 1)]
        apart = part.float().mean((2, 3)) - part.new_tensor(self.colour)
        return self.scale * (apart / UNIT).square().sum(1) / 2
