"""Sections of the keys of `ldmctl sample`: how guidance is applied, and how a masked part is painted."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ldmctl.config.base import Config

REPEATS = 5  # of each step, by repaint


class Guiding(Config):
    """How guidance is applied, where it is neither 0 nor 1."""

    method: Literal["plain", "apg", "zero-star"] = Field(
        "plain",
        description="apg: what only saturates is left out (arXiv:2410.02416); zero-star: for models that predict flow, the weaker "
        "velocity is first scaled to fit (arXiv:2503.18886)",
    )
    interval: tuple[NonNegativeFloat, PositiveFloat] | None = Field(
        None, description="noise levels sigma / alpha between which guidance works, (low, high]; it is 1 at others (arXiv:2404.07724)"
    )
    rescale: float = Field(
        0.0, ge=0, le=1, description="share by which the guided clean estimate gets the deviation of the plain one (arXiv:2305.08891)"
    )
    eta: float = Field(0.0, ge=0, description="apg: share that is kept of what points along the estimate; 1 is plain guidance")
    norm: PositiveFloat | None = Field(None, description="apg: the largest length of a picture's update, over all its latent's numbers")
    momentum: float = Field(0.0, gt=-1, lt=1, description="apg: share of the update before that is added; the paper's are negative")
    zero_steps: NonNegativeInt = Field(0, description="zero-star: first steps that stand still")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.method != "apg" and (given := [key for key in ("eta", "norm", "momentum") if getattr(self, key)]):
            raise ValueError(f"guiding.{given[0]} belongs to guiding.method=apg, and the method is {self.method}")
        if self.method != "zero-star" and self.zero_steps:
            raise ValueError(f"guiding.zero_steps belongs to guiding.method=zero-star, and the method is {self.method}")
        if self.method == "apg" and self.rescale:
            raise ValueError("apg bounds the update itself (guiding.norm); guiding.rescale would shrink it a second time: leave one away")
        if self.interval is not None and self.interval[0] >= self.interval[1]:
            raise ValueError(f"guiding.interval goes from a low to a higher level, not from {self.interval[0]:g} to {self.interval[1]:g}")
        return self


class Painting(Config):
    """How the masked part of a picture is painted."""

    method: Literal["pigdm", "repaint", "blend", "condition"] = Field(
        "pigdm",
        description="condition: a model that listens through `inpaint` is told what is known, as it is where no method is named; pigdm: "
        "what is known corrects the rest, by one backward a step (arXiv:2305.04391), with any sampler; repaint: each step is taken several "
        "times (arXiv:2201.09865), with samplers that take their steps alone, such as ddpm and heun; blend: what is known is only put back, which learns little of it",
    )
    repeats: PositiveInt = Field(REPEATS, description="repaint: how often each step is taken")
    feather: NonNegativeInt | None = Field(
        None, description="pixels around the mask over which what was painted fades into the picture; null: one cell of the latents"
    )
