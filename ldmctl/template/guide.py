"""Bright or dark: the mean lightness of a picture towards a value."""

from pydantic import Field, PositiveFloat
from torch import Tensor

from ldmctl.config import PluginConfig


class Template:
    """As if the mean were known to 0.1 of the range from -1, black, to 1, white."""

    class Config(PluginConfig):
        lightness: float = Field(0.0, ge=-1, le=1, description="the mean of all pixels that is wanted")
        scale: PositiveFloat = Field(1.0, description="how much it counts: the loss is multiplied by it")

    def __init__(self, config: Config, *, image_channels: int, **context: object):
        self.lightness, self.scale = config.lightness, config.scale

    def loss(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> [B], 0 where nothing is to be changed."""
        apart = image.float().mean((1, 2, 3)) - self.lightness
        return self.scale * (apart / 0.1).square() / 2
