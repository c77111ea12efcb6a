"""The scale that losses have in float16 is in no gradient that an optimizer sees, whatever the losses, penalties and micro-batches."""

import pytest
import torch
from torch import nn

from ldmctl.losses.objective import backward
from ldmctl.losses.parts import build_parts, settled
from ldmctl.training import order
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
WORDS = [
    "discriminator={type: patchgan, widths: [8]}",
    "adversarial={start: 0, warmup: 0, ramp: 0, loss: vanilla, r1: 1, r1_every: 1, lecam: 0.1, advantage: 0}",
    "autoencoder.kl_weight=0.1",
    "losses.equivariance_weight=0.5",
    "perceptual=features",
]


class Quartic(nn.Module):
    """A perceptual loss without weights."""

    title = "quartic"

    def forward(self, image, target):
        return (image - target).pow(4).flatten(1).mean(1)


def learned(tiny, *words, scale, parts_of_batch):
    """(gradients of both networks in the third step, as their optimizers are given them; facts)."""
    config = settled(tiny("fit-ae", *WORDS, *words), {})
    parts = build_parts(config, Quartic(), CPU)
    for learner in parts.learners.values():
        learner.scale.fill_(scale)
    for step in range(3):
        image = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(step)) * 2 - 1
        slices = image.split(parts_of_batch)
        for number, rows in enumerate(slices):
            order.reseed("test", step, number)
            facts = backward(parts, config, rows, step, len(rows) / 8, CPU, last=number == len(slices) - 1)
        given = [parameter.grad / learner.scale for learner in parts.learners.values() for parameter in learner.parameters]
        for learner in parts.learners.values():
            learner.update(step)
        if parts.shares is not None:
            parts.shares.after_step()
        parts.adversary.after_step(step)
    return given, facts


@pytest.mark.parametrize("rows", [8, 3], ids=["whole", "in three unequal parts"])
@pytest.mark.parametrize(
    "words",
    [["adversarial.balance=image"], ["adversarial.balance=last-layer"], ["losses.shares={pixel: 0.5, perceptual: 0.4, adversarial: 0.1}"]],
    ids=["at the image", "at the last layer", "shares"],
)
def test_a_loss_scale_is_in_no_gradient(tiny, words, rows):
    plain, facts = learned(tiny, *words, scale=1.0, parts_of_batch=rows)
    scaled, _ = learned(tiny, *words, scale=2.0**12, parts_of_batch=rows)
    assert facts["adversarial_share"] > 0.01 and {"discriminator/r1", "discriminator/lecam", "kl", "equivariance"} <= facts.keys()
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
