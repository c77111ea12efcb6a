"""What a guide promises: a loss for each picture, which falls where its gradient says."""

from typing import Any

import torch

from ldmctl.diffusion.guides import context_of
from ldmctl.testing.promises import calling, expect, expect_same, maker, normal, promise, refusal_allowed, shape_of


@promise("guide")
def check_guide(cls: type, /, **options: Any) -> None:
    """A finite loss per picture, with a gradient against which it falls."""
    for channels in (3, 1):
        with refusal_allowed(channels == 1):
            guide = maker(cls, options, **context_of(channels))()
            expect(callable(getattr(guide, "loss", None)), "it has no method loss")
            image = normal(2, channels, 64, 64, seed=0).clamp(-1, 1).requires_grad_()
            with calling("loss"):
                loss = guide.loss(image)
            expect(getattr(loss, "shape", None) == (2,), f"loss gave {shape_of(loss)}, not [B]")
            expect(loss.isfinite().all(), "loss is not finite")
            expect(loss.requires_grad, "no gradient reaches the picture")
            (slope,) = torch.autograd.grad(loss.sum(), image)
            expect(slope.isfinite().all(), "the gradient of loss is not finite")
            expect(slope.flatten(1).any(1).all(), "the gradient of loss is 0 for pictures of noise")
            with torch.no_grad(), calling("loss"):
                expect_same(guide.loss(image), loss, "loss gives two values for the same pictures", exactly=True)
                expect_same(guide.loss(image[:1]), loss[:1], "a loss depends on the other pictures of a batch")
                length = slope.flatten(1).square().sum(1)
                step = (1e-3 * loss.abs().clamp(min=1e-3) / length).view(
                    -1, 1, 1, 1
                ) * slope  # as far as a thousandth less, were it straight
                expect((guide.loss(image - step) < loss).all(), "a small step against its gradient does not lower the loss")
