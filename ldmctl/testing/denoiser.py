"""What a denoiser promises: to listen to x, to time and to its condition, and to show its hidden tokens truly if it shows any."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.errors import PluginError
from ldmctl.protocols import Condition
from ldmctl.testing.promises import (
    calling,
    check_gradients,
    check_saved,
    expect,
    expect_different,
    expect_same,
    is_whole,
    maker,
    normal,
    promise,
    refusal_allowed,
    shape_of,
)


@promise("denoiser")
def check_denoiser(cls: type, /, **options: Any) -> None:
    """Shapes, that it listens to x, time and every part of a condition that it takes, of tokens to those that count, and hidden tokens."""
    parts = {
        "vector_dim": Condition(vector=normal(2, 6)),
        "token_dim": Condition(tokens=normal(2, 3, 6), mask=torch.tensor([[True, True, True], [True, True, False]])),
        "map_channels": Condition(maps=normal(2, 6, 16, 8)),
    }
    _check_listening(cls, options, {}, None)
    for name, condition in parts.items():
        with refusal_allowed(True):
            _check_listening(cls, options, {name: 6}, condition)


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
            louder = Condition(*(part + 1 if part is not None and part.is_floating_point() else part for part in condition))
            expect_different(
                model(x, timestep, louder), out, f"the prediction does not depend on the condition, though {sizes} was promised"
            )
            expect(model(x, timestep, None).shape == x.shape, "a missing condition changes the shape")
            if condition.tokens is not None:
                _check_tokens(lambda told: model(x, timestep, told), condition)
    if hasattr(model, "forward_with_hidden"):
        _check_hidden(model, x, timestep, condition)
    check_saved(make, model, lambda model: model(x, timestep, condition))


def _check_tokens(model: Callable[[Condition], Tensor], condition: Condition) -> None:
    """Tokens that do not count are not heard, however many there are."""
    tokens, mask = condition.tokens, condition.mask
    assert tokens is not None and mask is not None
    out, count = model(condition), len(tokens)
    other = condition._replace(tokens=torch.where(mask[:, :, None], tokens, tokens + 3))
    expect_same(model(other), out, "the prediction depends on tokens that do not count")
    longer = Condition(tokens=torch.cat([tokens, normal(count, 9, tokens.shape[2], seed=1)], dim=1), mask=F.pad(mask, (0, 9)))
    expect_same(model(longer), out, "the prediction depends on how far tokens are padded")
    shorter = condition._replace(mask=mask & (torch.arange(mask.shape[1]) < 1))
    expect_different(model(shorter), out, "the prediction does not depend on which tokens count")
    silent = model(condition._replace(mask=torch.zeros_like(mask)))
    expect(bool(silent.isfinite().all()), "the prediction is not finite where no token counts")


def _check_hidden(model: Any, x: Tensor, timestep: Tensor, condition: Condition | None) -> None:
    """Tokens after any block, beside the exact prediction of `forward`, with gradients to all that is before them."""
    depth, grid = getattr(model, "depth", None), getattr(model, "grid", None)
    expect(is_whole(depth), f"depth is {depth!r}, and must be how many blocks forward_with_hidden can look behind")
    rows_and_columns = isinstance(grid, tuple) and len(grid) == 2 and all(map(is_whole, grid))
    expect(rows_and_columns, f"grid is {grid!r}, and must be (rows, columns) of the tokens of forward_with_hidden")
    assert depth is not None and grid is not None
    with torch.no_grad(), calling("forward"):
        out = model(x, timestep, condition)
    before: set[str] = set()
    for block in sorted({0, depth // 2, depth}):
        latent = x.clone().requires_grad_()
        with calling("forward_with_hidden"):
            said, hidden = model.forward_with_hidden(latent, timestep, condition, block=block)
        expect_same(said.detach(), out, f"forward_with_hidden(block={block}) does not give what forward gives", exactly=True)
        width = hidden.shape[-1]
        wanted = [len(x), grid[0] * grid[1], width]
        expect(shape_of(hidden) == wanted, f"forward_with_hidden(block={block}) gave tokens {shape_of(hidden)}, not {wanted}")
        reached = _reached(model, latent, hidden)
        expect("x" in reached and reached >= before, f"no gradient reaches the blocks before through the tokens after block {block}")
        expect(block == 0 or reached > before, f"the tokens after block {block} come from no later block than those before")
        before = reached
    try:
        model.forward_with_hidden(x, timestep, condition, block=depth + 1)
    except PluginError:
        return
    raise PluginError(f"forward_with_hidden(block={depth + 1}) is refused by no PluginError, though depth is {depth}")


def _reached(model: nn.Module, latent: Tensor, hidden: Tensor) -> set[str]:
    """Names of what a gradient other than zero reaches from hidden tokens: parameters, and the latent as `x`."""
    named = {"x": latent, **{name: value for name, value in model.named_parameters() if value.requires_grad}}
    expect(hidden.requires_grad, "hidden tokens have no gradient")
    found = torch.autograd.grad((hidden.float() - 1).square().mean(), list(named.values()), allow_unused=True)
    return {name for name, value in zip(named, found, strict=True) if value is not None and bool(value.any())}


def _first(condition: Condition | None) -> Condition | None:
    return condition and Condition(*(None if part is None else part[:1] for part in condition))
