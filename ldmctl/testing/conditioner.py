"""What a conditioner promises: the vector, tokens or maps that it announces."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldmctl.diffusion.denoise import joined
from ldmctl.protocols import Condition
from ldmctl.testing.promises import calling, check_gradients, check_saved, expect, expect_same, is_whole, maker, promise, shape_of


@promise("conditioner")
def check_conditioner(cls: type, given: Any = None, /, **options: Any) -> None:
    """What was announced, of what is given for three pictures and of nothing.

    `given` is by default three labels (of three classes, the last -1), as the host gives them whatever is announced.
    """
    make = maker(cls, options, classes=["cat", "dog", "emu"])
    model = make()
    sizes = {"vector": model.vector_dim, "tokens": model.token_dim, "maps": model.map_channels}
    for name, size in sizes.items():
        expect(size == 0 or is_whole(size), f"the announced size of {name} is {size!r}")
    expect(any(sizes.values()), "vector_dim, token_dim and map_channels are all 0: nothing is said")
    what = "encode or null"
    if given is None:
        given, what = torch.tensor([2, 0, -1]), "encode (given labels int64 [B], which is all that the host has) or null"
    model.eval()
    with calling(what):
        said, nothing = model.encode(given), model.null(3)
        for condition, method in ((said, "encode"), (nothing, "null")):
            _check_condition(condition, sizes, method)
        expect(any(not torch.equal(*pair) for pair in _pairs(said, nothing)), "null says the same as encode")
        for one, other in _pairs(model.encode(given), said):
            expect_same(one, other, "encode twice gives two conditions", exactly=True)
    both = joined(said, nothing)
    expect(all(len(part) == 6 for part in both if part is not None), "conditions and null conditions do not join to one batch")
    model.train()
    if any(value.requires_grad for value in model.parameters()):
        parts = [part for condition in (model.encode(given), model.null(3)) for part in condition._replace(mask=None) if part is not None]
        check_gradients(model, sum(part.float().square().sum() for part in parts))
    check_saved(make, model, lambda model: next(part for part in model.encode(given) if part is not None))


def _check_condition(condition: Any, sizes: Mapping[str, int], method: str) -> None:
    expect(isinstance(condition, Condition), f"{method} gave {type(condition).__name__}, not a Condition")
    for name, size in sizes.items():
        part = getattr(condition, name)
        expect((part is not None) == (size > 0), f"{method} gave {'no ' if part is None else ''}{name}, and {size} was announced")
        width = 1 if name == "maps" else -1
        if part is not None:
            expect(len(part) == 3 and part.shape[width] == size, f"{method} gave {name} {shape_of(part)} for 3 pictures and size {size}")
    if condition.mask is not None:
        expect(condition.tokens is not None and condition.mask.shape == condition.tokens.shape[:2], f"{method}: mask and tokens differ")
        expect(condition.mask.dtype == torch.bool, f"{method} gave a mask of {condition.mask.dtype}, not bool")


def _pairs(one: Condition, other: Condition) -> list[tuple[Tensor, Tensor]]:
    return [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
