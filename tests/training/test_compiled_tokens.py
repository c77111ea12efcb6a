"""Networks that listen to tokens are compiled once for one number of tokens and once for all others, and say what they say uncompiled."""

import pytest
import torch
from torch._dynamo.utils import counters

from ldmctl import registry
from ldmctl.protocols import Condition

SMALL = {"dit": {"width": 32, "depth": 1, "head_dim": 16}, "unet": {"widths": [16], "layers": 1, "attention": [True]}}


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
            torch.nn.init.normal_(parameter, std=0.1)
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
