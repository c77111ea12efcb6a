"""What a conditioner promises: the vector, tokens or maps that it announces, of what it listens to."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldmctl.diffusion.denoise import joined
from ldmctl.protocols import Condition
from ldmctl.testing.promises import calling, check_gradients, check_saved, expect, expect_same, is_whole, maker, promise, shape_of
from ldmctl.testing.said import SLOTS, TEXTS, Said, padded, tokens_of


@promise("conditioner")
def check_conditioner(cls: type, given: Any = None, /, **options: Any) -> None:
    """What was announced, of what is given for three pictures and of nothing, and the methods of what it listens to.

    `given` is by default what the host gives: three labels (of three classes, the last -1), texts, maps or pictures.
    """
    listens = getattr(cls, "listens", "label")
    expect(listens in SLOTS, f"it listens to {listens!r}, and there are {', '.join(SLOTS)}")
    for said in SLOTS[listens](cls, options):
        _check(cls, options, said, given)


def _check(cls: type, options: Mapping[str, Any], said: Said, given: Any) -> None:
    make = maker(cls, options, **said.context)
    model = make()
    sizes = {"vector": model.vector_dim, "tokens": model.token_dim, "maps": model.map_channels}
    for name, size in sizes.items():
        expect(size == 0 or is_whole(size), f"the announced size of {name} is {size!r}")
    expect(any(sizes.values()), "vector_dim, token_dim and map_channels are all 0: nothing is said")
    what = "encode or null"
    if given is None:
        given, what = said.given(model), f"encode (given {said.form}) or null"
    if said.texts:
        _check_texts(model)
    model.eval()
    with calling(what):
        full, nothing = model.encode(given), model.null(3)
        for condition, method in ((full, "encode"), (nothing, "null")):
            _check_condition(condition, sizes, method, said.size)
        expect(any(not torch.equal(*pair) for pair in _pairs(full, nothing)), "null says the same as encode")
        for one, other in _pairs(model.encode(given), full):
            expect_same(one, other, "encode twice gives two conditions", exactly=True)
        if said.size:
            wide = model.null(2, size=(3, 5)).maps
            expect(shape_of(wide) == [2, model.map_channels, 3, 5], f"null(2, size=(3, 5)) gave maps {shape_of(wide)}")
    both = joined(full, nothing)
    expect(all(len(part) == 6 for part in both if part is not None), "conditions and null conditions do not join to one batch")
    model.train()
    if any(value.requires_grad for value in model.parameters()):
        parts = [part for condition in (model.encode(given), model.null(3)) for part in condition._replace(mask=None) if part is not None]
        check_gradients(model, sum(part.float().square().sum() for part in parts))
    check_saved(make, model, lambda model: next(part for part in model.encode(given) if part is not None))


def _check_texts(model: Any) -> None:
    """Rows of texts, each its own, and what is made of them, whatever they are padded to."""
    model.eval()
    with calling("prepare, cut or fingerprint"):
        rows, fingerprint = model.prepare(TEXTS), model.fingerprint
        expect(
            re.fullmatch("[0-9a-f]{64}", str(fingerprint)), f"fingerprint is {fingerprint!r}, and must be a SHA-256 in hexadecimal digits"
        )
        expect(len(rows) == len(TEXTS), f"prepare gave {len(rows)} rows for {len(TEXTS)} texts")
        for text, row in zip(TEXTS, rows, strict=True):
            lengths = {len(value) for value in row.values()}
            expect(
                len(lengths) == 1 and lengths != {0},
                f"prepare gave tensors of {sorted(lengths)} tokens for {text[:20]!r}; one length from 1 is right",
            )
            expect(all(value.device.type == "cpu" for value in row.values()), "prepare gave tensors that are not on the CPU")
            (alone,) = model.prepare([text])
            for name, value in row.items():
                complaint = f"prepare gave other {name} for {text[:20]!r} alone than among others"
                expect_same(alone[name].float(), value.float(), complaint, tolerance=1e-2)
        expect(all(isinstance(model.cut(text), str) for text in TEXTS), "cut gave no text")
        expect(model.cut("") == "", "cut says that something of the empty text is not heard")
    longest = max(map(tokens_of, rows))
    (nothing,) = model.prepare([""])
    with torch.no_grad(), calling("encode or null"):
        short, long = (model.encode(padded(rows, length)) for length in (longest, 2 * longest + 1))
        empty, null = model.encode(padded([nothing], tokens_of(nothing))), model.null(1)
    if short.tokens is not None:
        expect(
            short.mask is not None and bool(short.mask.any(1).all()),
            "encode gave tokens of texts without a mask, or a text without any token",
        )
        mask = short.mask
        expect_same(short.tokens[mask], long.tokens[:, :longest][mask], "tokens depend on how far texts are padded", tolerance=1e-5)
        expect(not long.mask[:, longest:].any(), "padding counts as tokens in the mask")
    if short.vector is not None:
        expect_same(short.vector, long.vector, "the vector depends on how far texts are padded", tolerance=1e-5)
    for one, other in _pairs(empty, null):
        expect_same(one.float(), other.float(), "null is not what the empty text says", tolerance=1e-2)


def _check_condition(condition: Any, sizes: Mapping[str, int], method: str, size: tuple[int, int] | None) -> None:
    expect(isinstance(condition, Condition), f"{method} gave {type(condition).__name__}, not a Condition")
    for name, width in sizes.items():
        part = getattr(condition, name)
        expect((part is not None) == (width > 0), f"{method} gave {'no ' if part is None else ''}{name}, and {width} was announced")
        place = 1 if name == "maps" else -1
        if part is not None:
            expect(len(part) == 3 and part.shape[place] == width, f"{method} gave {name} {shape_of(part)} for 3 pictures and size {width}")
        if name == "maps" and part is not None and size is not None:
            expect(shape_of(part)[2:] == list(size), f"{method} gave maps {shape_of(part)} for latents of {size[0]} x {size[1]}")
    if condition.mask is not None:
        expect(condition.tokens is not None and condition.mask.shape == condition.tokens.shape[:2], f"{method}: mask and tokens differ")
        expect(condition.mask.dtype == torch.bool, f"{method} gave a mask of {condition.mask.dtype}, not bool")


def _pairs(one: Condition, other: Condition) -> list[tuple[Tensor, Tensor]]:
    return [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
