"""Guides: losses on the decoded picture that correct the clean estimate at each step, with any sampler (arXiv:2209.14687).

A guide says how likely what is wanted is of a picture, exp(-loss). The network's clean estimate D is a mean, with the
covariance C left around it: the correction is -C times the loss's gradient, through decoder and denoiser. Taken as it
is, that overshoots wherever the loss is steeper than C is wide, so it is divided by 1 + the loss's own curvature
along it, by Gauss and Newton's estimate: exact for Gaussian data and a squared error, and at no scale beyond loss 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.attribution import expect, plugin_of
from ldmctl.config.resolve import plugin_config
from ldmctl.diffusion.editing import pulled
from ldmctl.endings import is_memory_shortage
from ldmctl.errors import ConfigError, MemoryShortage, one_line
from ldmctl.training.engine import Engine

DIMS = (1, 2, 3)
LIGHTER = "a lighter guide: guide.by=features for perceptual, a smaller guide.side for classifier"


def context_of(image_channels: int) -> dict[str, Any]:
    """What a guide is made with beside its config."""

    def perceptual(by: Any) -> Any:
        if not isinstance(by, str) and not isinstance(by.get("type"), str):
            names = ", ".join(plugin.name for plugin in registry.plugins("perceptual"))
            raise ConfigError(f"A guide's perceptual distance has no type: name one of {names}.")
        named = plugin_config("perceptual", {"type": by} if isinstance(by, str) else by)
        return registry.build("perceptual", named, image_channels=image_channels)

    return {"image_channels": image_channels, "perceptual": perceptual}


def build_guides(configs: Sequence[Any], *, image_channels: int, device: torch.device) -> list[Any]:
    """The guides of these configs, on the device."""
    guides = []
    for config in configs:
        guide = registry.build("guide", config, **context_of(image_channels))
        guides.append(guide.to(device) if isinstance(guide, torch.nn.Module) else guide)
    return guides


@torch.no_grad()
def try_guides(guides: Sequence[Any], header: Mapping[str, Any], sides: tuple[int, int], engine: Engine) -> None:
    """What guides raise of pictures of these sides (height, width), such as that they are too small for them; a shape that is no loss's is a
    PluginError."""
    for guide in guides:
        image = torch.rand(1, int(header["image"]["channels"]), *sides, generator=torch.Generator().manual_seed(0)) * 2 - 1
        said = getattr(guide, "loss", guide)(image.to(engine.device))
        shape = list(said.shape) if isinstance(said, Tensor) else type(said).__name__
        expect(shape == [1], guide, f"loss gave {shape} for pictures {list(image.shape)}, not [1]")


class Guides:
    """A correction by the sum of their losses; in memory a guide may also be a function."""

    def __init__(self, guides: Sequence[Any], decode: Callable[[Tensor], Tensor], free: Callable[[float], Tensor] | None = None):
        self.guides, self.decode = guides, decode
        self.free = free  # sigma -> [1,1,h,w], 1 where something may change at that level; None: everywhere

    def __call__(self, x: Tensor, clean: Tensor, sigma: float) -> Tensor:
        """The change of the clean estimate [B,c,h,w]; a MemoryShortage that names the guides where there is no room for it."""
        try:
            return self.change(x, clean, sigma)
        except Exception as error:
            if not is_memory_shortage(error):
                raise
            names = " and ".join(
                dict.fromkeys(registry.word_for(plugin) if (plugin := plugin_of(each)) else "of yours" for each in self.guides)
            )
            raise MemoryShortage(
                f"Out of memory at the guide {names}, whose gradient passes through the decoder and the network ({one_line(error)[:160]}). In "
                f"this order: 1. batch=4, or 1; 2. {LIGHTER}; 3. --precision bf16; 4. --device cpu."
            ) from None

    def change(self, x: Tensor, clean: Tensor, sigma: float) -> Tensor:
        """The same, by the gradient of the losses."""
        latent = clean.detach().requires_grad_()
        image = self.decode(latent)
        if not bool(image.isfinite().all()):  # the network's fault, which is said when all is decoded
            return torch.zeros_like(latent)
        if not image.requires_grad:
            raise ConfigError("This model's decoder lets no gradient through to its latents, so no guide can work on them.")
        loss = torch.stack([loss_of(guide, image, sigma) for guide in self.guides]).sum(0)
        (slope,) = torch.autograd.grad(loss.sum(), latent, allow_unused=True, materialize_grads=True)
        if not bool(slope.isfinite().all()):
            self.blame(latent, sigma)
        change = pulled(x, clean, sigma, slope)
        change = change if self.free is None else change * self.free(sigma)
        change, loss = change.double(), loss.view(-1, 1, 1, 1).double()  # the square of a large scale has no room in float32
        bend = (slope * change).sum(DIMS, keepdim=True) / (2 * loss)
        return (-change / (1 + torch.where(loss > 0, bend, 0.0).clamp(min=0))).to(clean.dtype)

    def blame(self, latent: Tensor, sigma: float) -> None:
        """A PluginError that names the guide whose loss has no finite gradient."""
        for guide in self.guides:
            (slope,) = torch.autograd.grad(loss_of(guide, self.decode(latent), sigma).sum(), latent)
            expect(bool(slope.isfinite().all()), guide, f"the gradient of loss is not finite at sigma / alpha = {sigma:.3g}")


def loss_of(guide: Any, image: Tensor, sigma: float) -> Tensor:
    """What a guide says of pictures [B,C,H,W], float32 [B]; a PluginError that names it for what is no loss."""
    said = getattr(guide, "loss", guide)(image)
    shape = list(said.shape) if isinstance(said, Tensor) else type(said).__name__
    expect(shape == [len(image)], guide, f"loss gave {shape} for pictures {list(image.shape)}, not [{len(image)}]")
    expect(bool(said.isfinite().all()), guide, f"loss is not finite at sigma / alpha = {sigma:.3g}: {said.detach().tolist()[:4]}")
    expect(said.requires_grad, guide, "no gradient leads from its loss to the picture")
    return said.float()
