"""Losses weighed by shares: each gets its part of the gradient at the reconstruction, whatever its own scale.

The balancer of EnCodec (arXiv:2210.13438, sec. 3.4), with one difference: the pixel loss keeps its weight of 1 and the others are brought to
it, so that the autoencoder's penalties, which no picture's gradient can be compared with, keep theirs beside it. Norms are those of
the whole batch, averaged over steps in logarithms, and are heard from the next step on, as in `Balance`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ldmctl.losses.balance import BALANCED, TINY

NAMES = ("pixel", "perceptual", BALANCED)
SMOOTHING = 0.9


class Shares(nn.Module):
    """The norms of the losses' gradients at the reconstruction, averaged; a buffer, so that a run resumes with it.

    Until its first measurement a loss counts nothing, the first of `NAMES` that has a share excepted: it always has weight 1.
    """

    norms: Tensor  # [3] in the order of NAMES; 0 until measured

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("norms", torch.zeros(len(NAMES)))
        self._sums: list[Tensor] = []

    def gradient(
        self,
        losses: Mapping[str, Tensor],
        shares: Mapping[str, float],
        image: Tensor,
        *,
        share: float = 1.0,
        scale: float | Tensor = 1.0,
        heard: float | Tensor = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(gradient of all losses at image [B,C,H,W], facts): norms are to each other as `shares`, which need not add up to 1; that of
        the adversarial loss is multiplied by `heard`. The first loss has the share of a perceptual one that is not there too, so that the
        adversarial one has no more than its own.

        `image`, the losses, `share` and `scale` are as in `Balance.gradient`. An adversarial gradient that is not finite counts
        nothing. Facts: `<name>_share` of each in the sum of norms, and `<name>_scale`, what its gradient was multiplied by.
        """
        counted = [name for name in NAMES if name in losses and shares[name] > 0]
        absent = sum(shares[name] for name in NAMES if name not in losses and name != BALANCED)
        shares = {**shares, counted[0]: shares[counted[0]] + absent}
        gradients = {name: torch.autograd.grad(losses[name] * scale, image)[0] / scale for name in counted}
        norms = {name: gradient.norm() for name, gradient in gradients.items()}
        self._sums.append(
            torch.stack([norms[name].square() if name in norms else image.new_zeros(()) for name in NAMES]).detach() * share**2
        )
        total, sizes, facts = torch.zeros_like(image), {}, {}
        for name in counted:
            factor = self._factor(name, counted[0], shares)
            if name == BALANCED:
                factor = torch.where(norms[name].isfinite(), factor * heard, 0.0)
            total = total + torch.where(factor > 0, factor * gradients[name], 0.0)  # where: 0 * nan would be nan
            sizes[name] = torch.where(factor > 0, factor * norms[name], 0.0)
            facts[f"{name}_scale"] = factor
        whole = sum(sizes.values(), start=image.new_zeros(())).clamp_min(TINY)
        return total, facts | {f"{name}_share": size / whole for name, size in sizes.items()}

    def _factor(self, name: str, first: str, shares: Mapping[str, float]) -> Tensor:
        """What the gradient of a loss is multiplied by, so that its norm is to that of the `first` loss as their shares."""
        own, reference = self.norms[NAMES.index(name)], self.norms[NAMES.index(first)]
        if name == first:
            return torch.ones_like(own)
        return torch.where(own > 0, shares[name] / shares[first] * reference / own.clamp_min(TINY), 0.0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Takes the step's norms into the average. One that is zero or not finite on any rank is passed over by all of them."""
        if not self._sums:
            return
        found, self._sums = torch.stack(self._sums).sum(0), []
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
            found = found / dist.get_world_size() ** 2  # each rank's loss is the mean over its own part
        measured = found.sqrt()
        averaged = torch.exp(torch.lerp(measured.clamp_min(TINY).log(), self.norms.clamp_min(TINY).log(), SMOOTHING))
        renewed = torch.where(self.norms > 0, averaged, measured)
        self.norms.copy_(torch.where(measured.isfinite() & (measured > 0), renewed, self.norms))
