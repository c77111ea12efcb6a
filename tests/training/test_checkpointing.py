"""Blocks that are computed again in the backward give the same numbers and keep less."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.blocks import Decoder, DownBlock, Encoder, MidBlock, UpBlock
from ldmctl.training.costs import saved_bytes

WIDTHS = [8, 16, 16]


class Both(nn.Module):
    """An encoder and a decoder."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(1, WIDTHS, 4, layers=2), Decoder(4, WIDTHS, 1, layers=2)

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image))


def coder() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    image = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return Both(), lambda module: module(image)


def unet(dropout: float = 0.0) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    plugin = registry.load("denoiser", "unet")
    config = plugin.Config(type="unet", widths=WIDTHS, layers=2, head_dim=8, dropout=dropout)
    module = plugin(config, channels=4, size=(7, 7))
    for parameter in module.parameters():  # a U-Net starts at zero, where most gradients vanish
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 4, 7, 7, generator=torch.Generator().manual_seed(1))
    return module, lambda module: module(x, torch.tensor([3.0, 870.0]))


NETWORKS = {"autoencoder": coder, "unet": unet, "unet with dropout": lambda: unet(0.3)}


def blocks(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, DownBlock | MidBlock | UpBlock)]


def learned(
    module: nn.Module, forward: Callable[[nn.Module], Tensor], *, checkpointing: bool, bf16: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """(output, gradients by name) of one forward, perhaps under autocast, and a backward outside of it."""
    for block in blocks(module):
        block.checkpointing = checkpointing
    module.zero_grad()
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = forward(module)
    out.float().square().sum().backward()
    return out.detach(), {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_outputs_and_gradients_are_the_same_bit_for_bit(name, bf16):
    torch.manual_seed(0)
    module, forward = NETWORKS[name]()
    assert len(blocks(module)) >= 7
    plain, gradients = learned(module, forward, checkpointing=False, bf16=bf16)
    recomputed, again = learned(module, forward, checkpointing=True, bf16=bf16)
    assert torch.equal(plain, recomputed)
    assert sum(bool(gradient.any()) for gradient in gradients.values()) > len(gradients) * 0.8
    assert [key for key, gradient in gradients.items() if not torch.equal(gradient, again[key])] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_global_random_numbers_go_on_as_without(name):
    module, forward = NETWORKS[name]()
    states = []
    for checkpointing in (False, True):
        learned(module, forward, checkpointing=checkpointing)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("name", ["autoencoder", "unet"])
def test_less_is_kept_for_the_backward(name):
    module, forward = NETWORKS[name]()
    whole = saved_bytes(module, lambda: forward(module))
    for block in blocks(module):
        block.checkpointing = True
    assert 0 < saved_bytes(module, lambda: forward(module)) < 0.5 * whole


def test_inputs_that_are_kept_are_counted():
    block = UpBlock([8 + 4, 8], 8, last=True, norm_groups=4)
    block.checkpointing = True
    x, skips = torch.randn(1, 8, 4, 4, requires_grad=True), [torch.randn(1, 0, 4, 4), torch.randn(1, 4, 4, 4)]
    assert saved_bytes(block, lambda: block(x, skips)) == x.nbytes + sum(skip.nbytes for skip in skips)


def test_nothing_is_computed_again_without_gradients_or_unless_asked():
    calls = []
    block = MidBlock(8, norm_groups=4)
    block.resnets[0].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 8, 4, 4)
    block(x).sum().backward()
    assert len(calls) == 1
    block.checkpointing = True
    with torch.no_grad():
        block(x)
    assert len(calls) == 2
    block(x).sum().backward()
    assert len(calls) == 4


def test_one_block_can_be_switched_on_alone():
    module, _ = coder()
    first = blocks(module)[0]
    first.checkpointing = True
    assert [block.checkpointing for block in blocks(module)].count(True) == 1
    assert DownBlock.checkpointing is False
