"""A straight line from data to noise that spends more of its time near the noise (arXiv:2403.03206, eq. 23)."""

from pydantic import Field, PositiveFloat
from torch import Tensor

from ldmctl.config import PluginConfig


class Template:
    """Rectified flow with shifted times: alpha + sigma = 1."""

    class Config(PluginConfig):
        shift: PositiveFloat = Field(3.0, description="1 moves nothing; larger latents want more")

    def __init__(self, config: Config):
        self.shift = config.shift

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t [B] in [0, 1], 1 is noise -> alpha [B] and sigma [B]."""
        sigma = self.shift * t / (1 + (self.shift - 1) * t)
        return (1 - t) / (1 + (self.shift - 1) * t), sigma
