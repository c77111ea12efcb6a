"""A small discriminator: three convolutions, so that each logit judges a patch of 16 x 16 pixels."""

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.config import PluginConfig


class Template(nn.Module):
    """Convolutions without norms."""

    class Config(PluginConfig):
        width: PositiveInt = Field(64, description="channels after the first convolution, twice as many after the second")

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(image_channels, config.width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(config.width, 2 * config.width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * config.width, 1, 3, padding=1),
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """image [B,C,H,W] in [-1, 1] -> one map of logits [B,1,H/4,W/4], higher where it looks real."""
        return [self.layers(image)]
