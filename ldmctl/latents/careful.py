"""What a person hands to a loaded model in a notebook, taken or refused with a sentence: what was given, what is expected."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ldmctl.errors import ConfigError
from ldmctl.pictures.images import to_float

FARTHEST = 1.5  # what pictures in [-1, 1] may reach after filters that overshoot


def pictures(given: Any, channels: int, device: torch.device) -> Tensor:
    """float32 [B,C,H,W] on the device, of floats in [-1, 1] or uint8 from 0 to 255; anything else is a ConfigError."""
    wanted = f"Pictures [B,{channels},H,W] are expected, floats in [-1, 1] or uint8 from 0 to 255"
    image = tensor(given, wanted)
    if image.ndim == 3:
        raise ConfigError(f"{wanted}; {shape(image)} was given. Of one picture make a batch: image[None].")
    if image.ndim != 4:
        raise ConfigError(f"{wanted}; {shape(image)} was given.")
    if image.shape[1] != channels:
        last = " Its channels come last: image.permute(0, 3, 1, 2) puts them first." if image.shape[-1] == channels else ""
        raise ConfigError(f"{wanted}; {shape(image)} was given, which has {image.shape[1]} channels.{last}")
    if 0 in image.shape:
        raise ConfigError(f"{wanted}; {shape(image)} was given, which holds nothing.")
    if image.dtype == torch.uint8:
        return to_float(image.to(device))
    if not image.is_floating_point():
        raise ConfigError(f"{wanted}; {shape(image)} of {named(image)} was given. If its values go from 0 to 255: image.to(torch.uint8).")
    finite(image, wanted)
    if (most := float(image.detach().abs().max())) > FARTHEST:
        from_bytes = " If they go from 0 to 255: image / 127.5 - 1." if most > 2 * FARTHEST else ""
        raise ConfigError(f"{wanted}; the values given go to {most:.4g}.{from_bytes}")
    return image.to(device, torch.float32)


def latents(given: Any, channels: int, device: torch.device, *, what: str = "Latents") -> Tensor:
    """float32 [B,c,h,w] on the device; anything else is a ConfigError."""
    wanted = f"{what} [B,{channels},h,w] are expected, floats"
    latent = tensor(given, wanted)
    one = f" Of one make a batch: {what.lower()}[None]." if latent.ndim == 3 and latent.is_floating_point() else ""
    if latent.ndim != 4 or latent.shape[1] != channels or 0 in latent.shape:
        raise ConfigError(f"{wanted}; {shape(latent)} was given.{one}")
    if not latent.is_floating_point():
        raise ConfigError(f"{wanted}; {shape(latent)} of {named(latent)} was given.")
    finite(latent, wanted)
    return latent.to(device, torch.float32)


def stored(given: Any, autoencoder: Any, device: torch.device) -> Tensor:
    """What a cache holds, on the device: moments [B,m,h,w], or codes [B,h,w] of an autoencoder that has them."""
    can = hasattr(autoencoder, "lookup")
    wanted = "Moments [B,m,h,w] are expected, floats" + (
        f", or codes [B,h,w], whole numbers from 0 to {autoencoder.code_count - 1}" if can else ""
    )
    value = tensor(given, wanted)
    dims = 4 if value.is_floating_point() else 3
    if value.ndim != dims or 0 in value.shape or (dims == 3 and (not can or value.dtype == torch.bool)):
        raise ConfigError(f"{wanted}; {shape(value)} of {named(value)} was given.")
    if dims == 3 and not (int(value.min()) >= 0 and int(value.max()) < autoencoder.code_count):
        raise ConfigError(f"{wanted}; values from {int(value.min())} to {int(value.max())} were given.")
    if dims == 4:
        finite(value, wanted)
    return value.to(device)


def sides(given: Any) -> tuple[int, int]:
    """(height, width) of a pair of whole numbers, or of one for both."""
    pair = (given, given) if isinstance(given, int) else tuple(given) if isinstance(given, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ConfigError(f"A size is (height, width) of the picture, in pixels; {given!r} was given.")
    return pair[0], pair[1]


def tensor(given: Any, wanted: str) -> Tensor:
    """What was given, if it is a tensor."""
    if isinstance(given, Tensor):
        return given
    kind = f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}".removeprefix("builtins.")
    way = " torch.from_numpy makes a tensor of it." if kind == "numpy.ndarray" else ""
    raise ConfigError(f"{wanted}, as a torch.Tensor; {kind} was given.{way}")


def finite(value: Tensor, wanted: str) -> None:
    """A ConfigError if some of the values are not finite."""
    if not bool(value.isfinite().all()):
        raise ConfigError(f"{wanted}; {int((~value.isfinite()).sum()):,} of the values given are not finite.")


def shape(value: Tensor) -> str:
    """`[3, 32, 32]`"""
    return str(list(value.shape))


def named(value: Tensor) -> str:
    """`int64`"""
    return str(value.dtype).removeprefix("torch.")
