"""What a denoiser promises: to listen to x, to time and to its condition."""

from collections.abc import Mapping
from typing import Any

import torch

from ldmctl.protocols import Condition
from ldmctl.testing.promises import (
    calling,
    check_gradients,
    check_saved,
    expect,
    expect_different,
    expect_same,
    maker,
    normal,
    promise,
    refusal_allowed,
    shape_of,
)


@promise("denoiser")
def check_denoiser(cls: type, /, **options: Any) -> None:
    """Shapes, and that it listens to x, time and every part of a condition that it takes."""
    parts = {"vector": ("vector_dim", (2, 6)), "tokens": ("token_dim", (2, 3, 6)), "maps": ("map_channels", (2, 6, 16, 8))}
    _check_listening(cls, options, {}, None)
    for part, (name, shape) in parts.items():
        with refusal_allowed(True):
            _check_listening(cls, options, {name: 6}, Condition(**{part: normal(*shape)}))


def _check_listening(cls: type, options: Mapping[str, Any], sizes: dict[str, int], condition: Condition | None) -> None:
    context = {"vector_dim": 0, "token_dim": 0, "map_channels": 0, **sizes}
    make = maker(cls, options, channels=4, size=(16, 8), **context)
    model = make()
    x, timestep = normal(2, 4, 16, 8), torch.tensor([3.0, 870.5])
    with calling("forward"):
        out = model(x, timestep, condition)
    expect(out.shape == x.shape, f"forward gave {shape_of(out)}, not {shape_of(x)}")
    check_gradients(model, (out.float() - 1).square().mean())
    model.eval()
    with torch.no_grad(), calling("forward"):
        for value in model.parameters():  # a network that starts as 0 listens to nothing yet
            value.add_(0.05 * normal(*value.shape))
        out = model(x, timestep, condition)
        expect_different(model(x + normal(*x.shape, seed=1), timestep, condition), out, "the prediction does not depend on x")
        expect_different(model(x, timestep + 100, condition), out, "the prediction does not depend on the timestep")
        expect_same(model(x[:1], timestep[:1], _first(condition)), out[:1], "the prediction depends on the other latents of a batch")
        if condition is not None:
            louder = Condition(*(None if part is None else part + 1 for part in condition))
            expect_different(
                model(x, timestep, louder), out, f"the prediction does not depend on the condition, though {sizes} was promised"
            )
            expect(model(x, timestep, None).shape == x.shape, "a missing condition changes the shape")
    check_saved(make, model, lambda model: model(x, timestep, condition))


def _first(condition: Condition | None) -> Condition | None:
    return condition and Condition(*(None if part is None else part[:1] for part in condition))
