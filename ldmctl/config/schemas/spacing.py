"""The keys of `ldmctl spacing`."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from ldmctl.config.base import Config
from ldmctl.config.schemas.shared import Compute


class FindSpacing(Config):
    """ldmctl spacing: the noise levels at which a sampler of a trained denoiser errs least."""

    verb: ClassVar[str] = "spacing"
    run: str = Field("runs/ldm", description="run folder of fit-diffusion with its cache, or runs/ldm@STEP, runs/ldm@best")
    steps: PositiveInt = Field(10, description="levels of the table; `sample` interpolates it for other numbers of steps")
    cost: Literal["path", "bound"] = Field(
        "path",
        description="what is least; path: how far long steps end from many short ones, for samplers without noise; bound: that of align your "
        "steps (arXiv:2404.14507), for samplers with noise",
    )
    count: PositiveInt = Field(128, description="cached latents to look at")
    grid: int = Field(100, ge=3, description="levels that are looked at, evenly in the logarithm, of which the table is chosen")
    lowest: float = Field(
        0.02, gt=0, description="the level sigma / alpha from which the last step goes to clean: noise below it is not seen"
    )
    highest: float | None = Field(None, gt=0, description="the first level; null: the schedule's, or 80 where that is infinite")
    batch: PositiveInt = Field(16, description="latents per forward")
    machine: Compute = Compute()

    @model_validator(mode="after")
    def _more_levels_than_steps(self) -> Self:
        if self.grid <= self.steps:
            raise ValueError(f"grid={self.grid} must be above steps={self.steps}: a table of so many levels is chosen out of the grid")
        return self
