"""A network that samplers and diffusers' schedulers ask alike, and whether they asked about the same."""

import torch


class SmallNetwork:
    """Fixed, smooth, depends on everything it is given, and is nobody's ideal; keeps what it was asked about."""

    def __init__(self):
        self.asked = []

    def __call__(self, x, told, condition=None):
        self.asked.append(x)
        scale = torch.as_tensor(told, dtype=x.dtype).reshape(-1, 1, 1, 1) / 1000
        return 0.8 * x + 0.3 * torch.sin(x.roll(1, -1) + 3 * scale) - 0.1 * scale


def assert_same_way(ours, theirs, *, atol, rtol):
    """Two lists of what a network was asked about, the result at the end: equal up to `atol` of the largest number and `rtol`."""
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.double(), other.double(), atol=atol * other.abs().max().item(), rtol=rtol)
