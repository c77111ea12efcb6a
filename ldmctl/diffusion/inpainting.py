"""Inpainting with a network that was never trained for it: what is known corrects the clean estimate at each step.

Putting the known part back (`blend`) lets the rest learn too little of it. What the known part says of the rest is the
covariance that the network still leaves between them, which its slope holds (arXiv:2305.04391): `Pigdm`. RePaint
(arXiv:2201.09865) goes back up and down again instead, by each step of a sampler on its own.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmctl.diffusion.editing import LOUD, pulled
from ldmctl.errors import ConfigError

ALONE = ("ddpm", "ddim", "euler", "euler-ancestral", "heun", "dpmpp-2s-ancestral", "adaptive")  # built-in samplers that take steps alone
EARLY = 0.1  # sigma / alpha above which cells beside the free ones are held, too; held to the end they fit a little better still


class Cells(NamedTuple):
    """Which cells of the latent may change, float [1,1,h,w] of 0 and 1."""

    free: Tensor  # those with a free pixel
    grown: Tensor  # and those beside them

    def at(self, sigma: float) -> Tensor:
        """The cells that are free at a level. Those beside the mask are known but for detail, so only detail is left to them."""
        return self.free if sigma > EARLY else self.grown

    def to(self, device: torch.device) -> "Cells":
        """The same, on a device."""
        return Cells(self.free.to(device), self.grown.to(device))


def free_cells(free: Tensor, factor: int) -> Cells:
    """Of pixels that may change, bool [H,W]. A cell with one free pixel is free.

    An encoder looks past the edge of a cell, so those beside it are free in the end, unless a cell is a pixel.
    """
    cells = free.float()[None, None]
    down, right = -free.shape[0] % factor, -free.shape[1] % factor
    cells = F.max_pool2d(F.pad(cells, (0, right, 0, down), mode="replicate"), factor)
    return Cells(cells, cells if factor == 1 else F.max_pool2d(cells, 3, stride=1, padding=1))


class Blend:
    """The known part in place of its estimate, and nothing else."""

    def __init__(self, known: Tensor, cells: Cells):
        self.known, self.cells = known, cells

    def __call__(self, x: Tensor, clean: Tensor, sigma: float) -> Tensor:
        """known [B,c,h,w] - clean where it is kept."""
        return (1 - self.cells.at(sigma)) * (self.known - clean.detach())


class Pigdm(Blend):
    """Blend, and in the free part what the known part says of it.

    The covariance C that is left, times the error of the known part, is one backward. Pseudoinverse guidance divides it by a
    guess of the known part's variance; here it is as long as brings the known part closest to what is known, in each
    picture: exact where one number is known, or the known ones are left equally uncertain.
    """

    def __call__(self, x: Tensor, clean: Tensor, sigma: float) -> Tensor:
        """The change of the clean estimate [B,c,h,w]."""
        error = super().__call__(x, clean, sigma)
        if sigma > LOUD:  # nothing is known yet, also not what belongs together
            return error
        change = pulled(x, clean, sigma, error)
        free = self.cells.at(sigma)
        reached = (1 - free) * change
        dims = (1, 2, 3)
        length = (error * reached).sum(dims, keepdim=True) / (reached * reached).sum(dims, keepdim=True).clamp(min=1e-20)
        return error + free * change * length.clamp(min=0)


class Repaint:
    """The steps of a sampler, each taken `repeats` times, with the known part noised to the level that a step ends at.

    Up again it goes by fresh noise, as forward diffusion does, so what is true of noised pictures stays true: down by the paper's DDPM, by
    any other stochastic step, or along the deterministic path. The sampler must take its steps alone.
    """

    def __init__(self, known: Tensor, cells: Cells, repeats: int, sampler: Any):
        self.known, self.cells, self.repeats, self.sampler = known, cells, repeats, sampler

    def __call__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        sigmas: Tensor,
        noise: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """As a sampler: the clean latent [B,c,h,w] at the end of `sigmas` from x at their start."""
        for sigma, sigma_next in pairwise(sigmas):
            high, low = sigma.item(), sigma_next.item()
            turns = self.repeats if low > 0 else 1
            for turn in range(turns):
                x_next, known = self.sampler(denoise, x, torch.stack([sigma, sigma_next]), noise), self.known
                if low > 0:
                    known = known + noise(sigma, sigma_next) * low
                x_next = torch.where(self.cells.at(low) > 0, x_next, known)
                again = turn + 1 < turns
                x = x_next + noise(sigma, sigma_next) * math.sqrt(high**2 - low**2) if again else x_next
        return x


def takes_steps_alone(sampler: Any) -> bool:
    """Whether each step of a sampler is what it is without the steps before, which is tried on three of a known curve."""
    levels, one = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def curve(x: Tensor, sigma: Tensor | float) -> Tensor:
        return torch.sin(x) / (1 + float(sigma))

    apart = one
    for step in pairwise(levels):
        apart = sampler(curve, apart, torch.stack(step), lambda *_: one)
    return bool(torch.allclose(sampler(curve, one, levels, lambda *_: one), apart, rtol=1e-9, atol=0))


def refuse_churn(sampler: Any, *, painted: bool) -> None:
    """A ConfigError for churn with a mask: what is known would be stirred with the rest, and too little is left of what may vary."""
    if painted and getattr(getattr(sampler, "config", None), "churn", None):
        raise ConfigError(
            "sampler.churn stirs noise in that a mask does not reckon with: what is painted varies too little. Take sampler.churn=0, or "
            "painting.method=repaint with ddpm, which draws noise anew in its own way."
        )


def refuse_steps(method: str, sampler: Any) -> None:
    """A ConfigError for `repaint` with a sampler that builds a step on those before: again and again there would be nothing to build on."""
    if method == "repaint" and not takes_steps_alone(sampler):
        raise ConfigError(
            "painting.method=repaint takes each step of the sampler several times, and the one asked for builds a step on those before it, or on "
            f"how many there are. Take one of {', '.join(ALONE)} (euler without churn), or painting.method=pigdm, which works with all."
        )
