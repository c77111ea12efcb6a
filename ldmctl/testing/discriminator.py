"""What a discriminator promises: maps of logits that it and the picture learn from."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldmctl.testing.promises import calling, check_gradients, check_saved, expect, few, maker, normal, promise, refusal_allowed, shape_of


@promise("discriminator")
def check_discriminator(cls: type, /, **options: Any) -> None:
    """Maps of logits, one list for a batch, with gradients to the picture and to all parameters."""
    for channels in (3, 1):
        with refusal_allowed(channels == 1):
            make = maker(cls, options, image_channels=channels)
            model = make()
            image = normal(4, channels, 64, 64).clamp(-1, 1).requires_grad_()
            before = {name: value.clone() for name, value in model.state_dict().items()}
            with calling("forward"):
                maps = model(image)
            changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
            expect(not changed, f"forward changes {few(changed)}; change state in after_step, which runs once per step")
            expect(isinstance(maps, list) and maps, f"forward gave {type(maps).__name__}, not a list of maps")
            for each in maps:
                expect(each.ndim == 4 and each.shape[:2] == (4, 1) and each.numel(), f"a map of logits is {shape_of(each)}, not [B,1,*,*]")
            check_gradients(model, sum(each.float().square().mean() for each in maps))
            expect(image.grad is not None and image.grad.any(), "no gradient reaches the picture")
            check_saved(make, model, partial(_scores, channels))


def _scores(channels: int, model: Any) -> Tensor:
    return model(normal(4, channels, 64, 64))[0]
