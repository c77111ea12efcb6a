"""A straight line from data to noise: x_t = (1 - t) x_0 + t noise (arXiv:2209.03003, arXiv:2210.02747)."""

from pydantic import Field
from torch import Tensor

from ldmctl.config import PluginConfig


class Flow:
    """Rectified flow, in continuous time."""

    class Config(PluginConfig):
        shift: float = Field(
            1.0,
            gt=0,
            description="in training t becomes s t / (1 + (s - 1) t), so that above 1 noise is learned more, as large latents want it "
            "(arXiv:2403.03206, eq. 23); `sample spacing.shift` does so when sampling",
        )

    def __init__(self, config: Config):
        self.shift = config.shift

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha [B] and sigma [B] at t [B], with alpha + sigma = 1."""
        return 1 - t, t

    def training_time(self, u: Tensor) -> Tensor:
        """The times t [B] that uniform u [B] are trained at."""
        return u if self.shift == 1 else self.shift * u / (1 + (self.shift - 1) * u)
