"""A straight line from data to noise: x_t = (1 - t) x_0 + t noise (arXiv:2209.03003, arXiv:2210.02747)."""

from torch import Tensor

from ldmctl.config import PluginConfig


class Flow:
    """Rectified flow, in continuous time."""

    class Config(PluginConfig):
        pass

    def __init__(self, config: Config):
        pass

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha [B] and sigma [B] at t [B], with alpha + sigma = 1."""
        return 1 - t, t
