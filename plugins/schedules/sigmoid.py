"""alpha^2 falls as a piece of a sigmoid does, slowly at both ends (arXiv:2212.11972, appendix; arXiv:2301.10972)."""

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from ldmctl.config import PluginConfig


class Sigmoid:
    """Much time at middling noise, in continuous time, from data to pure noise."""

    class Config(PluginConfig):
        start: float = Field(-3.0, description="where on the sigmoid t = 0 lies")
        end: float = Field(3.0, description="where t = 1 lies, above `start`")
        temperature: float = Field(1.0, gt=0, description="the lower, the steeper; the higher, the more noise at all times")

        @field_validator("end")
        @classmethod
        def _above_start(cls, end: float, info: ValidationInfo) -> float:
            if "start" in info.data and end <= info.data["start"]:
                raise ValueError(f"must be above start={info.data['start']:g}")
            return end

    def __init__(self, config: Config):
        self.low, self.high = config.start / config.temperature, config.end / config.temperature

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha [B] and sigma [B] at t [B], with alpha^2 + sigma^2 = 1."""
        place = torch.sigmoid(torch.lerp(t.new_tensor(self.low), t.new_tensor(self.high), t))
        ends = torch.sigmoid(t.new_tensor([self.low, self.high]))
        return ((ends[1] - place) / (ends[1] - ends[0])).sqrt(), ((place - ends[0]) / (ends[1] - ends[0])).sqrt()
