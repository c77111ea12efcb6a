"""What an autoencoder promises: what it encodes, draws and decodes, learns by, and offers beyond."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ldmctl.testing.promises import (
    calling,
    check_gradients,
    check_saved,
    expect,
    expect_different,
    expect_same,
    few,
    is_whole,
    maker,
    normal,
    promise,
    refusal_allowed,
    seeded,
    shape_of,
)


@promise("autoencoder")
def check_autoencoder(cls: type, /, **options: Any) -> None:
    """Shapes, draws, penalties and facts, state, gradients, codes, and what it offers beyond; colour and, unless it is refused, grey."""
    for channels in (3, 1):
        with refusal_allowed(channels == 1):
            make = maker(cls, options, image_channels=channels)
            model = make()
            _check_coding(model, channels)
            _check_reconstruction(model, channels)
            _check_codes(model, channels)
            _check_bits(model, channels)
            _check_decoding(make(), channels)
            check_saved(make, model, partial(_through, channels))


def _through(channels: int, model: Any) -> Tensor:
    return model.decode(model.draw(model.encode(_picture(model, channels)), seeded()))


def _check_coding(model: Any, channels: int) -> None:
    """encode, draw and decode, with gradients switched off as when a cache is written."""
    expect(is_whole(model.factor) and is_whole(model.channels), "factor and channels must be whole numbers from 1")
    expect(model.rescale in ("channel", "common"), f"rescale is {model.rescale!r}, not 'channel' or 'common'")
    image = _picture(model, channels)
    height, width = (side // model.factor for side in image.shape[2:])
    model.eval()
    with torch.no_grad(), calling("encode, draw or decode"):
        moments = model.encode(image)
        expect(moments.ndim == 4 and moments.shape[2:] == (height, width), f"encode gave {shape_of(moments)}, not [B,m,{height},{width}]")
        latent = model.draw(moments, seeded())
        wanted = (2, model.channels, height, width)
        expect(latent.shape == wanted, f"draw gave {shape_of(latent)}, not {list(wanted)}")
        before = torch.get_rng_state()
        expect_same(model.draw(moments, seeded()), latent, "draw does not give the same latent for the same generator", exactly=True)
        expect(torch.equal(torch.get_rng_state(), before), "draw takes global random numbers though a generator is given")
        decoded = model.decode(latent)
        expect(decoded.shape == image.shape, f"decode gave {shape_of(decoded)}, not {shape_of(image)}")
        expect_same(model.encode(image[:1]), moments[:1], "encode depends on the other pictures of a batch")
        expect_same(model.decode(latent[:1]), decoded[:1], "decode depends on the other pictures of a batch")


def _check_reconstruction(model: Any, channels: int) -> None:
    """forward and after_step, as in training."""
    image = _picture(model, channels)
    model.train()
    before = _state(model)
    with calling("forward"):
        torch.manual_seed(0)
        out = model(image, seeded())
        torch.manual_seed(0)
        again = model(image, seeded())
        picture, penalties, facts = out.image, out.penalties, out.facts
    changed = [name for name, value in _state(model).items() if not torch.equal(value, before[name])]
    expect(not changed, f"forward changes {', '.join(changed)}; change state in after_step, which runs once per step")
    expect_same(again.image, picture, "forward twice with equal random numbers gives two pictures", exactly=True)
    expect(picture.shape == image.shape, f"forward gave a picture {shape_of(picture)}, not {shape_of(image)}")
    for name, value in penalties.items():
        expect(isinstance(value, Tensor) and value.ndim == 0, f"penalty {name!r} is not a scalar tensor")
        expect(value.isfinite().item(), f"penalty {name!r} is {value.item()}")
    for name, value in facts.items():
        expect(isinstance(value, Tensor) and not value.requires_grad, f"fact {name!r} is not a detached tensor")
        expect(value.ndim == (1 if name.endswith("_counts") else 0), f"fact {name!r} has shape {shape_of(value)}; only _counts are lists")
    check_gradients(model, (picture - image).square().mean() + sum(penalties.values()))
    if (layer := getattr(model, "last_layer", None)) is not None:
        expect(any(layer is parameter for parameter in model.parameters()), "last_layer is not one of its parameters")
        expect(layer.grad is not None and layer.grad.any(), "no gradient reaches last_layer")
    if hasattr(model, "after_step"):
        for _ in range(3):
            with calling("after_step"):
                model(image, seeded())
                renewed = model.after_step()
            listed = isinstance(renewed, Sequence | Mapping) and not isinstance(renewed, str)
            expect(listed, f"after_step returns {renewed!r}, neither a list of names nor rows by name")
            tensors = model.state_dict()
            unknown = set(renewed) - set(tensors)
            expect(not unknown, f"after_step names {sorted(unknown)}, which the module does not have")
            for name, rows in renewed.items() if isinstance(renewed, Mapping) else ():
                numbers = isinstance(rows, Tensor) and rows.ndim == 1 and not rows.is_floating_point() and rows.dtype != torch.bool
                expect(numbers, f"after_step gives {rows!r} as the rows of {name}, not integers [N]")
                expect(bool((rows < len(tensors[name])).all() and (rows >= 0).all()), f"after_step numbers rows that {name} does not have")


def _check_codes(model: Any, channels: int) -> None:
    """codes and lookup, where they exist."""
    expect(hasattr(model, "codes") == hasattr(model, "lookup"), "codes and lookup come together or not at all")
    if not hasattr(model, "codes"):
        expect(not hasattr(model, "code_count"), "code_count counts codes, and there is no method `codes`")
        return
    model.eval()
    with torch.no_grad(), calling("codes or lookup"):
        moments = model.encode(_picture(model, channels))
        codes = model.codes(moments)
        expect(not codes.is_floating_point(), f"codes are {codes.dtype}, not integers")
        expect(codes.shape == (2, *moments.shape[2:]), f"codes gave {shape_of(codes)}, not [B,h,w]")
        if hasattr(model, "code_count"):
            expect(is_whole(model.code_count), f"code_count is {model.code_count!r}, not a whole number from 1")
            lowest, highest = codes.min().item(), codes.max().item()
            expect(lowest >= 0 and highest < model.code_count, f"codes go from {lowest} to {highest}, and code_count is {model.code_count}")
        found = model.lookup(codes)
        expect(found.shape == moments.shape, f"lookup gave {shape_of(found)}, not {shape_of(moments)}")
        pictures = model.decode(model.draw(found)), model.decode(model.draw(moments))
        expect_same(*pictures, "a picture decoded from its codes is not the one decoded from its moments")


def _check_bits(model: Any, channels: int) -> None:
    """bits, where it exists."""
    if not hasattr(model, "bits"):
        return
    model.eval()
    with torch.no_grad(), calling("bits"):
        bits = model.bits(model.encode(_picture(model, channels)))
        expect(bits.shape == (2,), f"bits gave {shape_of(bits)}, not [B]")
        expect(bits.isfinite().all() and (bits >= 0).all(), f"bits are {bits.tolist()}; they must be finite and not negative")


def _check_decoding(model: Any, channels: int) -> None:
    """decoding, where it exists, names submodules that decode needs and encode does without. Changes the model."""
    names = getattr(model, "decoding", None)
    if names is None:
        return
    expect(isinstance(names, Sequence) and not isinstance(names, str) and names, f"decoding is {names!r}, not a list of names")
    parts = {name: part for name, part in model.named_modules() if name}
    unknown = [name for name in names if name not in parts]
    expect(not unknown, f"decoding names {unknown}, which are no submodules")
    image = _picture(model, channels)
    model.eval()
    with torch.no_grad(), calling("encode, codes or decode"):
        moments = model.encode(image)
        codes = model.codes(moments) if hasattr(model, "codes") else None
        decoded = model.decode(model.draw(moments, seeded()))
        for value in {id(value): value for name in names for value in parts[name].parameters()}.values():
            value.add_(0.05 * normal(*value.shape, seed=1))
        expect_same(model.encode(image), moments, f"encode uses {few(names)}, which decoding leaves to decode alone", exactly=True)
        if codes is not None:
            expect(torch.equal(model.codes(moments), codes), f"codes use {few(names)}, which decoding leaves to decode alone")
        expect_different(model.decode(model.draw(moments, seeded())), decoded, "decode does not depend on what decoding names")


def _picture(model: Any, channels: int) -> Tensor:
    """[2,channels,H,W] in [-1, 1], higher than 31 and not square."""
    side = model.factor * -(-32 // model.factor)
    return normal(2, channels, side, side + model.factor).clamp(-1, 1)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
