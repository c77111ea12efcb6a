"""Self-conditioning: a network also hears what it last said is clean (Analog Bits, Chen et al., arXiv:2208.04202, alg. 1 and 2).

The estimate joins the input channels, behind any maps, and is 0 where there is none. In training that is so in half of the steps; in the
others the network is asked twice, first without, and hears what it said then, through which no gradient goes. In sampling it hears what
it said at the evaluation before. Guidance and corrections change what a sampler is told and not what the network hears of itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ldmctl.protocols import Condition

LIMIT = 8.0  # deviations of a latent; near pure noise what an eps-network says of the noise may stand for anything
HALF = 0.5  # of the training steps


class Marginal(NamedTuple):
    """What it takes to read a clean latent from what a network says of a batch."""

    prediction: Any  # what the network predicts
    alpha: Tensor  # [B]
    sigma: Tensor  # [B]

    def part(self, rows: slice) -> Self:
        """Some rows of it."""
        return self._replace(alpha=self.alpha[rows], sigma=self.sigma[rows])


def with_estimate(condition: Condition | None, estimate: Tensor) -> Condition:
    """A condition with an estimate [B,c,h,w] behind its maps."""
    condition = Condition() if condition is None else condition
    maps = condition.maps
    return condition._replace(maps=estimate if maps is None else torch.cat([maps, estimate.to(maps.dtype)], dim=1))


def as_heard(clean: Tensor) -> Tensor:
    """An estimate [B,c,h,w] as a network hears it: in no graph, and not beyond LIMIT."""
    return clean.detach().clamp(-LIMIT, LIMIT)


class Recalled:
    """A denoiser that hears what it said at the evaluation before, zeros at the first. One serves one batch.

    With `twice` it is asked of each x without an estimate first, as in training, and hears that, so that nothing depends on the
    evaluations before.
    """

    def __init__(self, denoiser: Any, *, twice: bool = False):
        self.denoiser, self.twice = denoiser, twice
        self.before: Tensor | None = None

    def say(
        self, ask: Callable[[Condition | None], Tensor], x_t: Tensor, condition: Condition | None, clean: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """What `ask` says with the condition [B,c,h,w]; `clean` reads the clean latent from it."""
        if self.twice:
            with torch.no_grad():
                self.before = as_heard(clean(ask(with_estimate(condition, torch.zeros_like(x_t)))))
        output = ask(with_estimate(condition, self._heard(x_t)))
        self.before = as_heard(clean(output))
        return output

    def _heard(self, x_t: Tensor) -> Tensor:
        """The estimate for these rows [B,c,h,w]. Where guidance begins to ask for both halves, both hear that of the one; where it
        ends, the better one hears its own."""
        if self.before is None:
            return torch.zeros_like(x_t)
        rows = len(x_t)
        return torch.cat([self.before, self.before]) if 2 * len(self.before) == rows else self.before[:rows]
