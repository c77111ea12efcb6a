"""Convolutions that score overlapping patches, the common part of patch discriminators (Isola et al., arXiv:1611.07004).

No norm here changes state in a forward, so a discriminator may be asked any
number of times within one step (by the two players, in micro-batches, for a
gradient penalty) and says the same.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.blocks.resnet import group_norm

PatchNorm = Literal["group", "batch", "spectral", "none"]

FIRST_ITERATIONS = 15  # of a fresh weight, of which nothing is known yet


class Patches(nn.Module):
    """4x4 convolutions: `widths` halve the map, `flat` ones of stride 1 follow, the last gives one logit per patch.

    Without `flat` a patch has 6 * 2**n - 2 pixels a side, n = len(widths): 46 for 3; with one `flat`, 70. Spectral norm is on
    every convolution, the others behind all but the first and the last (ibid., section 6.1.2). `none` suits a gradient penalty,
    with which StyleGAN2's discriminator does without norms (arXiv:1912.04958).
    """

    def __init__(self, image_channels: int, widths: Sequence[int], *, flat: Sequence[int] = (), norm: PatchNorm = "group"):
        super().__init__()
        self.smallest = (len(flat) + 2) * 2 ** len(widths)  # pixels a side: each convolution of stride 1 takes one off the map
        layers: list[nn.Module] = []
        before = image_channels
        for width, stride in [*((width, 2) for width in widths), *((width, 1) for width in flat)]:
            layers += [_convolution(before, width, stride, norm), *(_norm(width, norm) if layers else []), nn.LeakyReLU(0.2)]
            before = width
        self.layers = nn.Sequential(*layers, _convolution(before, 1, 1, norm))

    def forward(self, image: Tensor) -> Tensor:
        """image [B,C,H,W], at least `smallest` a side -> logits [B,1,*,*], one per patch."""
        return self.layers(image)

    def after_step(self) -> list[str]:
        """Once per optimizer step: spectral norms follow the weights. Renews nothing."""
        for layer in self.layers:
            if isinstance(layer, SpectralConv2d):
                layer.after_step()
        return []


class SpectralConv2d(nn.Module):
    """A convolution whose weight, as a matrix [width, rest], is divided by its largest singular value (arXiv:1802.05957).

    `u` follows the left singular vector by one power iteration per optimizer step, in `after_step`; PyTorch's own does so in each
    forward, which would make a step of four micro-batches another one than that of the whole batch.
    """

    u: Tensor

    def __init__(self, before: int, width: int, *, stride: int):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(width, before, 4, 4))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.weight, 0, 0.02)
        self.register_buffer("u", F.normalize(torch.randn(width), dim=0))
        for _ in range(FIRST_ITERATIONS):
            self.after_step()

    def forward(self, x: Tensor) -> Tensor:
        """[B,before,H,W] -> [B,width,*,*]."""
        with torch.autocast(x.device.type, enabled=False):
            # The derivative of the norm is u v', as when u and v are held fixed.
            weight = self.weight / torch.linalg.vector_norm(self.weight.flatten(1).T @ self.u)
        return F.conv2d(x, weight, self.bias, stride=self.stride, padding=1)

    @torch.no_grad()
    def after_step(self) -> None:
        """One power iteration; the same on all ranks, whose weights are equal."""
        matrix = self.weight.flatten(1)
        self.u.copy_(F.normalize(matrix @ (matrix.T @ self.u), dim=0))


class BatchNorm(nn.Module):
    """Batch normalisation over the pictures of all ranks, on any device, always by the statistics of the forward's own batch.

    PyTorch's SyncBatchNorm serves no CPU and cannot be derived twice, as gradient penalties need.
    """

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B,width,h,w] -> the same shape; every rank has as many pictures and calls this as often as the others."""
        if not (dist.is_available() and dist.is_initialized()):
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        with torch.autocast(x.device.type, enabled=False):
            gap = x.float()
            gap = gap - _MeanOverRanks.apply(gap.mean((0, 2, 3), keepdim=True))
            variance = _MeanOverRanks.apply(gap.square().mean((0, 2, 3), keepdim=True))
            out = gap * (variance + self.eps).rsqrt() * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return out.to(x.dtype)


class _MeanOverRanks(torch.autograd.Function):
    """Its gradient is the mean of the ranks' gradients, so it can be derived as often as needed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _MeanOverRanks.apply(gradient)


def _convolution(before: int, width: int, stride: int, norm: PatchNorm) -> nn.Module:
    if norm == "spectral":
        return SpectralConv2d(before, width, stride=stride)
    convolution = nn.Conv2d(before, width, 4, stride=stride, padding=1)
    nn.init.normal_(convolution.weight, 0, 0.02)  # arXiv:1611.07004, section 6.2
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


def _norm(width: int, norm: PatchNorm) -> list[nn.Module]:
    if norm == "group":
        return [group_norm(width, 32, 1e-5)]
    return [BatchNorm(width)] if norm == "batch" else []
