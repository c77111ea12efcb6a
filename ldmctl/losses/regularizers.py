"""What keeps a discriminator from being too sure: a penalty on its gradient at real pictures, and one on leaving its averages."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def r1_penalty(logits: Sequence[Tensor], image: Tensor) -> Tensor:
    """Half of E ||grad D(x)||^2, a float32 scalar to be multiplied by gamma and added to the loss (Mescheder et al., arXiv:1801.04406, eq. 9).

    D(x) of a picture is the mean over maps of the mean over patches, as in the losses; the squared norm is a sum over the picture's pixels and
    channels, the expectation a mean over the batch. `logits` are maps [B,1,*,*] made of `image` [B,C,H,W], which requires a gradient
    and is real. The forward is best in float32: half precision leaves few digits to a gradient of a gradient.
    """
    score = torch.stack([each.float().flatten(1).mean(1) for each in logits]).mean(0)
    gradient = torch.autograd.grad(score.sum(), image, create_graph=True)[0]
    return gradient.float().square().flatten(1).sum(1).mean() / 2


class LeCam(nn.Module):
    """Pulls logits of real pictures to the average of those of made ones, and the other way (Tseng et al., arXiv:2104.03310).

    `note` in each micro-batch, `after_step` once per optimizer step; the averages are buffers and so part of a saved state. Before
    the first step there are none, and the penalty is 0.
    """

    real: Tensor
    fake: Tensor
    steps: Tensor

    def __init__(self, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        for name in ("real", "fake", "steps"):
            self.register_buffer(name, torch.zeros(()))
        self._seen: Tensor | None = None  # sums of mean logits on real and on made pictures, and their number

    def penalty(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """Maps of logits [B,1,*,*] -> E (D(x) - average of made)^2 + E (D(made) - average of real)^2, float32 scalar, each map counted equally."""
        away = [_mean([(each.float() - average).square() for each in maps]) for maps, average in ((real, self.fake), (fake, self.real))]
        return sum(away, start=torch.zeros_like(self.steps)) * (self.steps > 0)

    @torch.no_grad()
    def note(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> None:
        """The logits of one micro-batch, for the next `after_step`."""
        count = len(real[0])
        means = torch.stack([_mean([each.float() for each in maps]) for maps in (real, fake)])
        seen = torch.cat([means * count, means.new_full((1,), count)])
        self._seen = seen if self._seen is None else self._seen + seen

    @torch.no_grad()
    def after_step(self) -> list[str]:
        """Moves the averages towards the mean logits noted on all ranks: at first a plain mean of all steps, then exponential. Renews nothing.

        A step that was not finite is left out. Every rank calls it, having noted something or not, as all the others.
        """
        if self._seen is None:
            return []
        seen, self._seen = self._seen, None
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(seen)
        finite = seen.isfinite().all()
        self.steps += finite
        weight = (1 / self.steps.clamp_min(1)).clamp_min(1 - self.decay)
        for average, total in ((self.real, seen[0]), (self.fake, seen[1])):
            average.copy_(torch.where(finite, average.lerp(total / seen[2], weight), average))
        return []


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack([each.mean() for each in maps]).mean()
