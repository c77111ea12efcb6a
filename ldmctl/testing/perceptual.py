"""What a perceptual distance promises: 0 when equal, and a gradient to one of its two pictures."""

from typing import Any

import torch
from torch import Tensor, nn

from ldmctl.testing.promises import calling, expect, expect_same, few, maker, normal, promise, refusal_allowed, shape_of


@promise("perceptual")
def check_perceptual(cls: type, /, **options: Any) -> None:
    """A distance per picture: 0 when equal, with finite gradients to the first picture only."""
    for channels in (3, 1):
        with refusal_allowed(channels == 1):
            model = maker(cls, options, image_channels=channels)()
            trained = [name for name, value in model.named_parameters() if value.requires_grad]
            expect(not trained, f"{few(trained)} would be trained; a measure has no trained parameters")
            image, target = (normal(2, channels, 64, 64, seed=seed).clamp(-1, 1).requires_grad_() for seed in (0, 1))
            model.eval()
            with calling("forward"):
                distance = model(image, target)
                equal = model(target, target)
            expect(distance.shape == (2,), f"forward gave {shape_of(distance)}, not [B]")
            expect((distance > 0).all(), "different pictures have distance 0 or less")
            expect(equal.abs().max() < 1e-5, f"equal pictures have distance {equal.abs().max().item():.3g}")
            distance.sum().backward()
            expect(image.grad is not None and image.grad.any(), "no gradient reaches the picture")
            expect(target.grad is None or not target.grad.any(), "a gradient flows into the target")
            expect(_gradient_at_equal(model, target.detach()).isfinite().all(), "the gradient at equal pictures is not finite")
            expect_same(model(image[:1], target[:1]), distance[:1], "a distance depends on the other pictures of a batch")
            expect_same(model.train()(image, target), distance, "a distance differs in training mode")


def _gradient_at_equal(model: nn.Module, target: Tensor) -> Tensor:
    image = target.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(image, target).sum(), image)
    return gradient
