"""Promises of every discriminator, and of PatchGAN in particular."""

import pytest
import torch

from ldmctl import registry
from ldmctl.errors import PluginError

SMALL = {"patchgan": {"widths": [4, 8, 8]}}
NAMES = [plugin.name for plugin in registry.plugins("discriminator") if plugin.name in SMALL]


def make(name: str = "patchgan", image_channels: int = 3, **keys: object):
    torch.manual_seed(0)
    plugin = registry.load("discriminator", name)
    return plugin(plugin.Config(type=name, **{**SMALL[name], **keys}), image_channels=image_channels)


def test_the_built_in_discriminators_are_registered():
    assert NAMES == ["patchgan"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 64)])
def test_pictures_become_maps_of_logits(name, channels, size):
    maps = make(name, channels)(torch.rand(2, channels, size, size))
    assert maps
    assert all(each.shape[:2] == (2, 1) and each.numel() for each in maps)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_the_picture_and_every_parameter(name):
    discriminator, image = make(name), torch.rand(2, 3, 32, 32, requires_grad=True)
    sum(each.square().sum() for each in discriminator(image)).backward()
    assert image.grad.any()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in discriminator.parameters())


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_a_patch_sees_only_its_own_pixels(norm):
    discriminator, image = make(norm=norm).eval(), torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[..., -1] += 1
    same = torch.isclose(discriminator(image)[0], discriminator(changed)[0], atol=1e-7).all(dim=2).flatten()
    assert not same[-1]
    assert same[:3].all() or norm == "group"  # group statistics are of the whole picture


def test_too_small_pictures_are_refused():
    assert make()(torch.rand(1, 3, 16, 16))[0].shape == (1, 1, 1, 1)
    with pytest.raises(PluginError, match="16x16"):
        make()(torch.rand(1, 3, 15, 16))
