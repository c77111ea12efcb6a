"""How loud the adversarial loss may be beside the others.

A generator's loss has no scale of its own, so it is balanced against the other
losses by the norms of their gradients where they meet: at the reconstruction
(arXiv:2210.13438, sec. 3.4), or at the autoencoder's last layer (arXiv:2012.09841,
eq. 7). A stage then goes through the decoder once:

    gradient, facts = balance.gradient(losses, weights, image, step=step)
    torch.autograd.backward([image, *penalties], [gradient, *(None for _ in penalties)])
    balance.after_step()                                # once per optimizer step

The ratio of a step is that of its whole batch, over micro-batches and ranks, and
is heard from the next step on, so that neither changes what is learned.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

TINY = torch.finfo(torch.float32).tiny
BALANCED = "adversarial"  # the loss that is made louder or softer
OPENING = 10  # measurements whose mean is the ratio at the start, which `growth` bounds


class Balance(nn.Module):
    """The ratio of two gradient norms, averaged over steps in logarithms; a buffer, so that a run resumes with it.

    `place`: "image", "last-layer" or "none", where the balanced loss just keeps its weight. Until the first measurement
    the balanced loss counts nothing.
    """

    ratio: Tensor  # the others' norm over the balanced one's; 0 until it was measured
    opening: Tensor  # [2]: sum of the logarithms of the first measurements, and how many they are

    def __init__(self, place: str = "image", *, every: int = 1, smoothing: float = 0.9, largest: float = 1e4, growth: float | None = None):
        super().__init__()
        self.place, self.every, self.smoothing, self.largest, self.growth = place, every, smoothing, largest, growth
        self.register_buffer("ratio", torch.zeros(()))
        self.register_buffer("opening", torch.zeros(2))
        self._sums: list[Tensor] = []  # of this step: gradients of the others and of the balanced loss, or their squared norms

    def gradient(
        self,
        losses: Mapping[str, Tensor],
        weights: Mapping[str, float],
        image: Tensor,
        *,
        step: int = 0,
        share: float = 1.0,
        scale: float | Tensor = 1.0,
        last_layer: Tensor | None = None,
        heard: float | Tensor = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(gradient of all losses at image [B,C,H,W], facts). Other losses keep their weights; the balanced one's gradient
        gets `weight` times `heard` times the averaged ratio, so that its norm is about so many times that of theirs together.

        `image` is float32 and has a graph behind it, the losses are scalars made from it, means over the `share` of this
        rank's batch that it is. Each loss's own graph is walked once and freed, times `scale` on the way and divided by it
        after: towers in float16 would lose small gradients.

        A balanced gradient that is not finite counts nothing. The others' stay as they are: a NaN there is for the loop to see.
        Facts: `<name>_share` of each in the sum of norms at the image, and `adversarial_scale`, what its gradient was multiplied by.
        """
        counted = {name: loss for name, loss in losses.items() if weights[name] > 0}
        gradients = {name: torch.autograd.grad(loss * scale, image)[0] / scale for name, loss in counted.items()}
        total = sum((weights[name] * gradients[name] for name in counted if name != BALANCED), start=torch.zeros_like(image))
        norms = {name: gradient.norm() for name, gradient in gradients.items()}
        factors = {name: torch.full_like(norm, weights[name]) for name, norm in norms.items()}
        facts = {}
        if BALANCED in counted:
            others = len(counted) > 1
            if others and self.place != "none" and step % self.every == 0:
                self._measure(total, gradients[BALANCED], image, share, last_layer, scale)
            factor = self.ratio if others and self.place != "none" else 1.0
            factors[BALANCED] = torch.where(norms[BALANCED].isfinite(), factors[BALANCED] * factor * heard, 0.0)
            counts = factors[BALANCED] > 0
            total = total + torch.where(counts, factors[BALANCED] * gradients[BALANCED], 0.0)  # where: 0 * nan would be nan
            facts["adversarial_scale"] = factors[BALANCED]
        sizes = {name: torch.where(factors[name] > 0, factors[name] * norm, 0.0) for name, norm in norms.items()}
        whole = sum(sizes.values(), start=image.new_zeros(())).clamp_min(TINY)
        return total, facts | {f"{name}_share": size / whole for name, size in sizes.items()}

    def _measure(
        self, others: Tensor, balanced: Tensor, image: Tensor, share: float, last_layer: Tensor | None, scale: float | Tensor
    ) -> None:
        """Adds what this micro-batch says to the step's sums; pictures do not overlap, so squared norms at the image add up."""
        found = torch.stack([others.square().sum(), balanced.square().sum()]) * share**2
        if self.place == "last-layer":
            assert last_layer is not None
            found = torch.stack(
                [
                    torch.autograd.grad(image, last_layer, gradient * scale, retain_graph=True)[0].float() / scale * share
                    for gradient in (others, balanced)
                ]
            )
        self._sums.append(found.detach())

    @torch.no_grad()
    def after_step(self) -> None:
        """Takes the step's ratio into the average. One that is zero or not finite on any rank is passed over by all of them."""
        if not self._sums:
            return
        found, self._sums = torch.stack(self._sums).sum(0), []
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
        if self.place == "last-layer":
            found = found.flatten(1).square().sum(1)
        reference, size = found.sqrt()
        measured = (reference / size.clamp_min(TINY)).clamp_max(self.largest)
        averaged = torch.exp(torch.lerp(measured.clamp_min(TINY).log(), self.ratio.clamp_min(TINY).log(), self.smoothing))
        renewed = torch.where(self.ratio > 0, averaged, measured)
        counts = reference.isfinite() & size.isfinite() & (reference > 0) & (size > 0)
        if self.growth is not None:
            opens = counts & (self.opening[1] < OPENING)
            self.opening += torch.where(opens, torch.stack([measured.clamp_min(TINY).log(), torch.ones_like(measured)]), 0.0)
            renewed = torch.minimum(renewed, self.growth * (self.opening[0] / self.opening[1].clamp_min(1)).exp())
        self.ratio.copy_(torch.where(counts, renewed, self.ratio))
