"""What a discriminator learns, what it teaches, and how loudly.

Losses read lists of maps of logits, each map counted equally. A generator's
loss has no scale of its own, so it is balanced where it meets the others: at
the reconstruction, by the norms of their gradients (arXiv:2210.13438, sec. 3.4).
A stage then goes through the decoder once:

    gradient, facts = balanced_gradient(losses, weights, image)
    torch.autograd.backward([image, *penalties], [gradient, *(None for _ in penalties)])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import relu, softplus

from ldmctl.errors import ConfigError

LARGEST_RATIO = 1e4  # a discriminator that hardly answers is not amplified beyond this
TINY = torch.finfo(torch.float32).tiny

# kind: loss of logits of real pictures, of fake ones, and of fake ones as their maker wants them judged
LOSSES = {
    "hinge": (lambda x: relu(1 - x), lambda x: relu(1 + x), lambda x: -x),  # arXiv:1705.02894
    "vanilla": (lambda x: softplus(-x), softplus, lambda x: softplus(-x)),  # arXiv:1406.2661, not saturating
    "lsgan": (lambda x: (x - 1) ** 2, lambda x: x**2, lambda x: (x - 1) ** 2),  # arXiv:1611.04076
}


def discriminator_loss(kind: str, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean of the losses on real and on fake pictures, float32 scalar; the fakes were made without gradient."""
    of_real, of_fake, _ = LOSSES[kind]
    return (_mean([of_real(x.float()) for x in real]) + _mean([of_fake(x.float()) for x in fake])) / 2


def generator_loss(kind: str, fake: Sequence[Tensor]) -> Tensor:
    """How far the maker of these pictures is from passing them off as real, float32 scalar; its scale means nothing."""
    return _mean([LOSSES[kind][2](x.float()) for x in fake])


def discriminator_facts(real: Sequence[Tensor], fake: Sequence[Tensor]) -> dict[str, Tensor]:
    """Mean logits, detached: equal ones mean that it cannot tell them apart."""
    means = {"logits_real": real, "logits_fake": fake}
    return {name: _mean([x.detach().float() for x in maps]) for name, maps in means.items()}


def balanced_gradient(
    losses: Mapping[str, Tensor],
    weights: Mapping[str, float],
    image: Tensor,
    *,
    balanced: str = "adversarial",
    scale: float | Tensor = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(gradient of all losses at image [B,C,H,W], facts). Other losses keep their weights; the balanced one's gradient,
    when there is one, gets `weight` times the norm of theirs together.

    `image` is float32 and has a graph behind it, the losses are scalars made from it, batch means like each other. Each
    loss's own graph is walked once and freed, times `scale` on the way and divided by it after: towers in float16 would
    lose small gradients. Norms run over all ranks, so the number of ranks changes nothing; with
    micro-batches each is balanced by itself, so there a step is that of one large batch only up to the noise of the ratio.

    A balanced gradient that is zero, or not finite on any rank, counts nothing on all of them. The others' stay as they
    are: a NaN there is for the loop to see. If there are no others, the balanced loss keeps its plain weight.

    Facts: `<name>_share` of each in the sum of norms, and `<balanced>_scale`, what its gradient was multiplied by.
    """
    heard = {name: loss for name, loss in losses.items() if weights[name] > 0}
    gradients = {name: torch.autograd.grad(loss * scale, image)[0] / scale for name, loss in heard.items()}
    others = [weights[name] * gradients[name] for name in heard if name != balanced]
    total = sum(others, start=torch.zeros_like(image))
    reference, *norms = _norms([total, *gradients.values()])
    scales = {name: torch.full_like(reference, weights[name]) for name in heard}
    if balanced in heard:
        size = norms[list(heard).index(balanced)]
        if others:
            scales[balanced] *= (reference / size.clamp_min(TINY)).clamp_max(LARGEST_RATIO)
        counts = size.isfinite() & scales[balanced].isfinite()
        scales[balanced] = torch.where(counts, scales[balanced], 0.0)
        total = total + torch.where(counts, scales[balanced] * gradients[balanced], 0.0)  # where: 0 * nan would be nan
    sizes = {name: torch.where(scales[name] > 0, scales[name] * norm, 0.0) for name, norm in zip(heard, norms, strict=True)}
    whole = sum(sizes.values(), start=torch.zeros_like(reference)).clamp_min(TINY)
    facts = {f"{name}_share": size / whole for name, size in sizes.items()}
    return total, facts | ({f"{balanced}_scale": scales[balanced]} if balanced in heard else {})


def start_step(start: int | float, steps: int) -> int:
    """The step at which the discriminator starts, given as a step or as a share of the run; a ConfigError when that is never."""
    step = min(round(start * steps), steps - 1) if 0 < start < 1 else int(start)
    if step >= steps:
        raise ConfigError(
            f"The discriminator starts at step {step:,} of {steps:,}: never. "
            "Set adversarial.start lower (0.5 is half of any run), loop.steps higher, or discriminator: null."
        )
    return step


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack([x.mean() for x in maps]).mean()


def _norms(gradients: Sequence[Tensor]) -> Tensor:
    """[N] norms over the pictures of all ranks."""
    squares = torch.stack([x.square().sum() for x in gradients])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(squares)
    return squares.sqrt()
