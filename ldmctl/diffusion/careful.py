"""What a person hands to a loaded denoiser in a notebook, taken or refused with a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldmctl.diffusion.network import Network
from ldmctl.errors import ConfigError
from ldmctl.latents.careful import finite, latents, named, shape, tensor


def guard(network: Network, *, channels: int, classes: list[str], device: torch.device) -> None:
    """From now on a call of `network` with another input than it was trained on is a ConfigError."""

    def check(module: Any, given: tuple[Any, ...], keys: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        names = ("x", "timestep", "given", "dropped")
        call = dict(zip(names, given, strict=False)) | keys
        if "x" not in call or "timestep" not in call:
            raise ConfigError("A network is called with noised latents [B,c,h,w], their timesteps [B] and, with labels, class indices [B].")
        call["x"] = latents(call["x"], channels, device)
        count = len(call["x"])
        call["timestep"] = timesteps(call["timestep"], count, device)
        if call.get("estimate") is not None:
            call["estimate"] = estimates(call["estimate"], call["x"], hears_itself=module.self_conditioning)
        given_now = call.get("given")
        if isinstance(given_now, Mapping):
            if unknown := sorted(set(given_now) - set(module.conditioners)):
                raise ConfigError(
                    f"This network does not listen to {unknown[0]}; it listens to {', '.join(module.conditioners) or 'nothing'}."
                )
            if given_now.get("label") is not None:
                call["given"] = {**given_now, "label": labels(given_now["label"], count, classes, device)}
        elif module.conditioner is not None:
            call["given"] = labels(given_now, count, classes, device)
        return (), call

    network.register_forward_pre_hook(check, with_kwargs=True)


def timesteps(given: Any, count: int, device: torch.device) -> Tensor:
    """float32 [B] of a number or of [B]."""
    wanted = f"Timesteps [{count}] are expected, one for each latent, or one number for all"
    value = torch.tensor(given) if isinstance(given, int | float) else tensor(given, wanted)
    if value.ndim == 0:
        value = value.expand(count)
    if value.shape != (count,) or value.dtype == torch.bool or value.is_complex():
        raise ConfigError(f"{wanted}; {shape(value)} of {named(value)} was given.")
    finite(value, wanted)
    return value.to(device, torch.float32)


def estimates(given: Any, x: Tensor, *, hears_itself: bool) -> Tensor:
    """An estimate [B,c,h,w] of the clean latents behind x [B,c,h,w]."""
    if not hears_itself:
        raise ConfigError("This network was trained without self_conditioning, so it hears no estimate: leave it away.")
    value = latents(given, x.shape[1], x.device)
    if value.shape != x.shape:
        raise ConfigError(f"An estimate is as large as the latents, {shape(x)}; {shape(value)} was given.")
    return value


def labels(given: Any, count: int, classes: list[str], device: torch.device) -> Tensor:
    """int64 [B] of indices of classes, -1 for none."""
    wanted = f"Class indices [{count}] are expected, from 0 to {len(classes) - 1}, or -1 for no class"
    if given is None:
        raise ConfigError(f"{wanted}; none were given, and this network listens to labels.")
    if isinstance(given, list | tuple) and all(isinstance(each, int) for each in given):
        given = torch.tensor(given, dtype=torch.int64)
    value = tensor(given, wanted)
    if value.shape != (count,) or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ConfigError(f"{wanted}; {shape(value)} of {named(value)} was given.")
    if len(value) and not (int(value.min()) >= -1 and int(value.max()) < len(classes)):
        raise ConfigError(f"{wanted}; values from {int(value.min())} to {int(value.max())} were given.")
    return value.to(device, torch.int64)
