"""Whether a network takes a large size is found out without its numbers; a plugin that needs them is asked in earnest."""

from types import SimpleNamespace

import pytest
import torch

from ldmctl import registry
from ldmctl.diffusion.beginning import LARGE, passes, refuse_size
from ldmctl.diffusion.network import Network
from ldmctl.errors import ConfigError


class Halves(torch.nn.Module):
    """Takes even sides only, and counts the latents that it is given numbers of."""

    def __init__(self, *, reads=False):
        super().__init__()
        self.layer = torch.nn.Conv2d(4, 16, 2, stride=2)
        self.reads, self.given = reads, 0

    def forward(self, x, timestep, condition=None):
        self.given += x.device.type != "meta"
        if self.reads and float(x.abs().max()) > 1e6:
            raise ValueError("too loud")
        return torch.nn.functional.pixel_shuffle(self.layer(x), 2).reshape(x.shape)


def asked(denoiser, size):
    header = {"image": {"size": 64}, "latent": [4, 16, 16]}
    engine = SimpleNamespace(device=torch.device("cpu"), autocast=torch.no_grad)
    codec = SimpleNamespace(engine=engine, autoencoder=SimpleNamespace(factor=4))
    refuse_size(SimpleNamespace(size=size), header, codec, Network(denoiser))
    return denoiser.given


@pytest.mark.parametrize("name", [plugin.name for plugin in registry.plugins("denoiser")])
def test_every_denoiser_passes_without_numbers(name):
    plugin = registry.load("denoiser", name)
    denoiser = registry.build("denoiser", plugin.Config(type=name), channels=4, size=(16, 16))
    assert passes(Network(denoiser), (4, 256, 256))


def test_a_large_size_costs_no_forward_and_a_small_one_or_numbers_do():
    side = 4 * int(LARGE**0.5)
    assert asked(Halves(), (2 * side, side)) == 0
    assert asked(Halves(), (side, side)) == 1
    assert asked(Halves(reads=True), (2 * side, side)) == 1


def test_a_large_size_that_the_network_refuses_is_refused_in_its_words():
    side = 4 * int(LARGE**0.5)
    with pytest.raises(ConfigError, match=f"size={2 * side}x{side + 4} is not what this denoiser can take, .*invalid for input"):
        asked(Halves(), (2 * side, side + 4))
