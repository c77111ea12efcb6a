"""LPIPS: how far apart two pictures lie in the features of VGG16, weighed as people judged (arXiv:1801.03924).

Five stages of a frozen VGG16 see both pictures; each position's features are
scaled to unit length, their squared differences weighed by a learned head per
stage, averaged over positions and summed.

A picture's distance depends on no other picture, so its gradient is computed
together with it, a few pictures at a time, and is all that is kept for the
backward: the activations of the tower never wait for the rest of the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ldmctl.blocks import FrozenConvolution, channels_order, check_channels, fill, in_colour, inverse_length
from ldmctl.config import PluginConfig
from ldmctl.errors import DataError, MissingError
from ldmctl.storage.assets import LPIPS_HEADS, find_weights, lpips_heads

FILE = "vgg16-397923af.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"

WIDTHS = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]  # a stage each, pooled in between
SMALLEST = 16  # pixels that four poolings leave one of
AT_ONCE = {"cpu": 1 << 16, "cuda": 1 << 22}  # pixels of one pass: bounds memory, and on a CPU keeps allocations small enough to be reused
ROWS_AT_ONCE = 1 << 18  # features that a CPU's cache holds while they are compared


class LPIPS(nn.Module):
    """The VGG variant of LPIPS v0.1; equals torchmetrics' and lpips' numbers on their weights. Differentiable once."""

    title = "lpips"

    class Config(PluginConfig):
        weights: str | None = Field(None, description=f"torchvision's {FILE}; null: looked for, then downloaded")
        heads: str | None = Field(None, description="vgg.pth of LPIPS v0.1; null: the file inside the installed torchmetrics")

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        check_channels("lpips", image_channels)
        with torch.device("meta"):  # initial weights would only be thrown away
            self.features = _vgg16()
            self.heads = nn.ParameterList(torch.empty(1, widths[-1], 1, 1) for widths in WIDTHS)
        heads = Path(config.heads).expanduser() if config.heads else _heads_of_torchmetrics()
        fill(self.heads, heads, {str(i): f"lin{i}.model.1.weight" for i in range(len(WIDTHS))}, "the heads of LPIPS v0.1 for VGG16")
        tower = find_weights(FILE, url=URL, sha256=SHA256, given=config.weights)
        fill(self.features, tower, {name: f"features.{name}" for name in self.features.state_dict()}, "torchvision's weights of VGG16")
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()
        self._laid_out: tuple[Any, list[list[FrozenConvolution]]] = (None, [])

    def __getstate__(self) -> dict[str, Any]:
        """A copy lays out its weights again."""
        return {**self.__dict__, "_laid_out": (None, [])}

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in evaluation, whatever the module that holds it is told."""
        return super().train(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """[B,C,H,W] twice, in [-1, 1] -> [B] float32, 0 when equal; a DataError under 16 x 16 pixels."""
        if min(image.shape[-2:]) < SMALLEST:
            raise DataError(
                f"lpips needs pictures of at least {SMALLEST} x {SMALLEST} pixels, these have {image.shape[-1]} x {image.shape[-2]}: "
                "set a larger image.size, and image.patch where it is set, or perceptual: null."
            )
        kind = image.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        with torch.autocast(kind, enabled=False):
            x, y = ((in_colour(picture) - self.shift) / self.scale for picture in (image, target.detach()))
            if x.requires_grad and torch.is_grad_enabled():
                return _Distance.apply(x, y, self, dtype)
            return self.measure(x, y, dtype, sloped=False)[0]

    @torch.no_grad()
    def embed(self, image: Tensor) -> Tensor:
        """[B,C,H,W] in [-1, 1] -> [B,512] float32: the unit-length features of the last stage, averaged over positions."""
        with torch.autocast(image.device.type, enabled=False):
            x = ((in_colour(image) - self.shift) / self.scale).to(memory_format=channels_order(image.device))
            for layers in self._layers(torch.float32):
                x = _stage(x, layers).maps[-1]
            return (x * inverse_length(x)).mean((2, 3))

    @torch.no_grad()
    def measure(self, x: Tensor, y: Tensor, dtype: torch.dtype, *, sloped: bool) -> tuple[Tensor, Tensor | None]:
        """x, y [B,3,H,W] as the tower sees them -> distances [B] and the gradient [B,3,H,W] of each with respect to its x, float32."""
        stages = self._layers(dtype)
        some = max(1, AT_ONCE.get(x.device.type, 1 << 20) // (x.shape[-2] * x.shape[-1]))
        parts = [_measure(a, b, stages, self.heads, dtype, sloped) for a, b in zip(x.split(some), y.split(some), strict=True)]
        distance = torch.cat([part for part, _ in parts])
        return distance, torch.cat([slope for _, slope in parts if slope is not None]) if sloped else None

    def _layers(self, dtype: torch.dtype) -> list[list[FrozenConvolution]]:
        """The frozen convolutions in the numbers and the layout of the pass, made again only when a weight has changed."""
        parameters = list(self.features.parameters())
        key = dtype, [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters]
        if self._laid_out[0] != key:
            each = iter(zip(parameters[::2], parameters[1::2], strict=True))
            self._laid_out = key, [[FrozenConvolution(*next(each), dtype) for _ in widths] for widths in WIDTHS]
        return self._laid_out[1]


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, module: LPIPS, dtype: torch.dtype) -> Tensor:
        distance, slope = module.measure(x, y, dtype, sloped=True)
        ctx.save_for_backward(slope)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0] * gradient.view(-1, 1, 1, 1), None, None, None


class Stage(NamedTuple):
    """What the backward needs of a stage."""

    maps: list[Tensor]  # behind each ReLU
    pooled: Tensor | None  # where each maximum of the pooling before it stood
    size: torch.Size  # before that pooling


def _measure(
    x: Tensor, y: Tensor, stages: list[list[FrozenConvolution]], heads: nn.ParameterList, dtype: torch.dtype, sloped: bool
) -> tuple[Tensor, Tensor | None]:
    unscale = x.shape[-2] * x.shape[-1]  # undone at the end: the slope of a mean over many positions would vanish in float16
    distance = x.new_zeros(len(x))
    seen, slopes = [], []
    x, y = (picture.to(dtype, memory_format=channels_order(x.device)) for picture in (x, y))
    for layers, head in zip(stages, heads, strict=True):
        # One after the other, not as one batch: equal pictures then have equal features to the last bit.
        stage, y = _stage(x, layers), _stage(y, layers).maps[-1]
        x = stage.maps[-1]
        term, slope = _compare(x, y, head.flatten(), unscale, sloped)
        distance += term
        if sloped:
            seen.append(stage)
            slopes.append(slope)
    if not sloped:
        return distance, None
    back = torch.zeros_like(slopes[-1])
    while seen:
        stage, layers = seen.pop(), stages[len(seen)]
        back = back.add_(slopes.pop())
        for layer, features in zip(reversed(layers), reversed(stage.maps), strict=True):
            back = layer.back(back, features)
        if stage.pooled is not None:
            back = F.max_unpool2d(back, stage.pooled, 2, 2, output_size=stage.size)
    return distance, back.float() / unscale


def _stage(x: Tensor, layers: list[FrozenConvolution]) -> Stage:
    pooled, size, maps = None, x.shape, []
    if x.shape[1] > 3:
        x, pooled = F.max_pool2d(x, 2, 2, return_indices=True)
    for layer in layers:
        x = layer(x)
        maps.append(x)
    return Stage(maps, pooled, size)


def _compare(a: Tensor, b: Tensor, head: Tensor, unscale: float, sloped: bool) -> tuple[Tensor, Tensor | None]:
    """a, b [B,C,h,w], head [C] -> mean over positions of sum_c head_c (a_c/|a| - b_c/|b|)^2, float32 [B]; its slope in a, times `unscale`."""
    count, channels, height, width = a.shape
    a, b = (features.permute(0, 2, 3, 1).reshape(-1, channels) for features in (a, b))
    terms = torch.empty(len(a), device=a.device)
    slope = torch.empty_like(a) if sloped else None
    some = max(1, ROWS_AT_ONCE // channels) if a.device.type == "cpu" else len(a)
    for start in range(0, len(a), some):
        rows = slice(start, start + some)
        x, y = a[rows].float(), b[rows].float()
        inverse = inverse_length(x)
        x = x * inverse
        apart = x - y * inverse_length(y)  # no fused multiplication: equal features must leave exactly 0
        weighed = apart * head
        torch.sum(apart.mul_(weighed), 1, out=terms[rows])
        if slope is not None:
            along = torch.mul(x, weighed, out=apart).sum(1, keepdim=True)  # the part that scaling to unit length takes away
            torch.mul(weighed.sub_(x.mul_(along)), inverse.mul_(2 * unscale / (height * width)), out=slope[rows])
    distance = terms.view(count, -1).mean(1)
    return distance, None if slope is None else slope.view(count, height, width, channels).permute(0, 3, 1, 2)


def _vgg16() -> nn.Sequential:
    """The convolutions of VGG16 (arXiv:1409.1556) up to the last tap, numbered as torchvision numbers them."""
    layers: list[nn.Module] = []
    channels = 3
    for stage, widths in enumerate(WIDTHS):
        layers += [nn.MaxPool2d(2)] if stage else []
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers)


def _heads_of_torchmetrics() -> Path:
    if (file := lpips_heads()) is not None:
        return file
    raise MissingError(
        f"The heads of LPIPS ({LPIPS_HEADS}) are not in the installed torchmetrics: pip install 'torchmetrics>=1.5', "
        "or name the file of lpips v0.1 as perceptual.heads=FILE."
    )
