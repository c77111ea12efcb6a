"""Networks that listen to tokens are compiled once for one number of tokens and once for all others, and say what they say uncompiled."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from ldmctl import registry
from ldmctl.blocks.spatial import ProjectedAttention
from ldmctl.protocols import Condition
from ldmctl.training.compiling import lacking_to_compile
from ldmctl.training.engine import Engine

SMALL = {"dit": {"width": 32, "depth": 1, "head_dim": 16}, "unet": {"widths": [16], "layers": 1, "attention": [True]}}
LACKING = lacking_to_compile(Engine(torch.device("cpu"), torch.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_tokens_of_any_number_need_two_compilations(name):
    """Up to the C++ compiler: the graphs, their derivatives and their guards are those of any backend."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    counters.clear()
    plugin = registry.load("denoiser", name)
    denoiser = plugin(plugin.Config(type=name, **SMALL[name]), channels=3, size=(4, 4), token_dim=6)
    for parameter in denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    compiled = torch.compile(denoiser, backend="aot_eager", fullgraph=True)
    x, times = torch.randn(2, 3, 4, 4), torch.tensor([3.0, 700.0])
    for count in (5, 9, 7, 2, 33, 77):
        told = Condition(tokens=torch.randn(2, count, 6), mask=torch.arange(count) < torch.tensor([[count], [count // 2]]))
        seen = []
        for network in (denoiser, compiled):
            denoiser.zero_grad()
            out = network(x, times, told)
            out.square().sum().backward()
            seen.append([out.detach(), *(parameter.grad.clone() for parameter in denoiser.parameters())])
        for one, other in zip(*seen, strict=True):
            torch.testing.assert_close(one, other)
    assert counters["stats"]["unique_graphs"] == 2


class Between(nn.Module):
    """Attention to tokens, and a convolution behind it, for which torch.compile puts the channels of all maps last."""

    def __init__(self):
        super().__init__()
        self.attention, self.conv = ProjectedAttention(8, 6, heads=2), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x, tokens, mask):
        heard = self.attention(x.flatten(2).transpose(1, 2), tokens, mask)
        return self.conv(x + heard.transpose(1, 2).reshape(x.shape))


@pytest.mark.slow
@pytest.mark.skipif(LACKING is not None, reason=f"torch.compile needs {LACKING}")
def test_other_numbers_of_tokens_go_through_what_was_compiled_for_these():
    """torch 2.14 takes the strides of keys, values and masks for constants where they are dense."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    between = Between()
    compiled, x = torch.compile(between), torch.randn(2, 8, 4, 4)
    for count in (5, 9, 7, 33):
        tokens, mask = torch.randn(2, count, 6), torch.arange(count) < torch.tensor([[count], [count // 2]])
        seen = []
        for network in (between, compiled):
            between.zero_grad()
            out = network(x, tokens, mask)
            out.square().sum().backward()
            seen.append([out.detach(), *(parameter.grad.clone() for parameter in between.parameters())])
        for one, other in zip(*seen, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
