"""A schedule made of T betas: a table of alpha-bar at t = i/T, whose logarithm is interpolated in between."""

import torch
from torch import Tensor


class BetaTable:
    """alpha and sigma at any time from `betas` [T], float64: alpha-bar is the product of (1 - beta).

    With `zero_terminal` alpha is shifted and scaled so that nothing of the picture is left at t = 1 and the first step stays what it
    is (arXiv:2305.08891, alg. 1).
    """

    def __init__(self, betas: Tensor, *, zero_terminal: bool = False):
        self.timesteps, self.zero_terminal = len(betas), zero_terminal
        self.log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])  # [T+1], at t = i/T
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # the same, where and as it was asked for

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha [B] and sigma [B] at t [B], with alpha^2 + sigma^2 = 1."""
        if (where := (t.device, t.dtype)) not in self._tables:
            self._tables[where] = self.log_alpha_bar.to(t)  # once: a copy to a device waits for it
        table = self._tables[where]
        place = t * self.timesteps
        below = place.long().clamp(0, self.timesteps - 1)
        log_alpha_bar = torch.lerp(table[below], table[below + 1], place - below)
        alpha = torch.exp(log_alpha_bar / 2)
        if not self.zero_terminal:
            return alpha, torch.sqrt(-torch.expm1(log_alpha_bar))
        first, last = torch.exp(table[1] / 2), torch.exp(table[-1] / 2)
        alpha = ((alpha - last) * (first / (first - last))).clamp(max=1)
        return alpha, torch.sqrt((1 - alpha) * (1 + alpha))

    def timestep(self, t: Tensor) -> Tensor:
        """The step, counted from 0, as the network is told: T t - 1."""
        return t * self.timesteps - 1
