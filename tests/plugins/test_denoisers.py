"""Promises of every denoiser, and of the U-Net in particular."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ldmctl import registry
from ldmctl.protocols import Condition

SMALL = {"dit": {"width": 32, "depth": 2, "head_dim": 16}, "unet": {"widths": [8, 16, 16], "layers": 1, "norm_groups": 4}}
NAMES = [plugin.name for plugin in registry.plugins("denoiser") if plugin.name in SMALL]


def make(
    name: str = "unet", *, channels: int = 3, size: tuple[int, int] = (8, 8), context: dict | None = None, **keys: object
) -> nn.Module:
    torch.manual_seed(0)
    plugin = registry.load("denoiser", name)
    config = plugin.Config(type=name, **{**SMALL[name], **keys})
    return awake(plugin(config, channels=channels, size=size, **(context or {})))


def awake(denoiser: nn.Module) -> nn.Module:
    """The denoiser with what starts at zero moved away from it, so that every part matters."""
    for parameter in denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return denoiser


def latents(channels: int = 3, size: tuple[int, int] = (8, 8)) -> torch.Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


def test_the_built_in_denoisers_are_registered():
    assert NAMES == ["dit", "unet"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(3, (8, 8)), (1, (7, 7)), (4, (5, 12)), (2, (1, 1))])
def test_the_prediction_has_the_shape_of_the_latent(name, channels, size):
    x = latents(channels, size)
    assert make(name, channels=channels, size=size)(x, torch.tensor([0.0, 999.0])).shape == x.shape


@pytest.mark.parametrize("name", NAMES)
def test_the_prediction_is_float32_under_autocast(name):
    denoiser, x, t = make(name), latents(), torch.tensor([10.0, 900.0])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = denoiser(x, t)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, denoiser(x, t), atol=0.1, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_each_item_of_a_batch_has_its_own_time_and_condition(name):
    denoiser = make(name, context={"vector_dim": 5, "map_channels": 2}).eval()
    x, t, vector, maps = latents(), torch.tensor([3.0, 700.0]), torch.randn(2, 5), torch.randn(2, 2, 8, 8)
    together = denoiser(x, t, Condition(vector=vector, maps=maps))
    alone = torch.cat([denoiser(x[i : i + 1], t[i : i + 1], Condition(vector[i : i + 1], maps=maps[i : i + 1])) for i in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    for other in (Condition(vector=vector + 1, maps=maps), Condition(vector=vector, maps=maps + 1), Condition()):
        assert not torch.allclose(denoiser(x, t, other), together, atol=1e-4)
    assert not torch.allclose(denoiser(x, t + 50, Condition(vector=vector, maps=maps)), together, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    denoiser = make(name, context={"vector_dim": 5, "map_channels": 2})
    denoiser(latents(), torch.tensor([3.0, 700.0]), Condition(torch.randn(2, 5), maps=torch.randn(2, 2, 8, 8))).square().sum().backward()
    silent = [key for key, value in denoiser.named_parameters() if value.grad is None or not value.grad.any()]
    assert [key for key in silent if not key.endswith("to_k.bias")] == []  # softmax does not see a shift of all keys


@pytest.mark.parametrize("timestep", [0, 1, 500, 999])
@pytest.mark.parametrize(("widths", "size"), [((8, 16, 16), (8, 8)), ((8, 16), (6, 14)), ((8,), (7, 7))])
def test_weights_from_diffusers_give_its_output(timestep, widths, size):
    diffusers = pytest.importorskip("diffusers")
    levels = len(widths)
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=widths,
        layers_per_block=2,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", *["AttnDownBlock2D"] * (levels - 1)),
        up_block_types=(*["AttnUpBlock2D"] * (levels - 1), "UpBlock2D"),
    ).eval()
    ours = make(widths=list(widths), layers=2, size=size).eval()
    ours.load_state_dict(theirs.state_dict())
    x = latents(3, size)
    with torch.no_grad():
        expected = theirs(x, timestep).sample
        torch.testing.assert_close(ours(x, torch.full((2,), float(timestep))), expected, atol=1e-4, rtol=0)


def test_a_projected_vector_is_a_row_of_diffusers_class_embedding():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.UNet2DModel(
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",),
        num_class_embeds=3,
    ).eval()
    ours = make(widths=[8], attention=[True], context={"vector_dim": 5}).eval()
    weights = theirs.state_dict()
    table = weights.pop("class_embedding.weight")
    ours.load_state_dict(weights, strict=False)
    labels, vectors = torch.tensor([2, 0]), torch.randn(3, 5)
    with torch.no_grad():
        table.copy_(ours.vector_embedding(vectors))
        expected = theirs(latents(), 7, class_labels=labels).sample
        torch.testing.assert_close(ours(latents(), torch.tensor([7.0, 7.0]), Condition(vectors[labels])), expected, atol=1e-4, rtol=0)


def test_a_new_network_predicts_zero():
    plugin = registry.load("denoiser", "unet")
    unet = plugin(plugin.Config(type="unet", **SMALL["unet"]), channels=3, size=(8, 8))
    assert not unet(latents(), torch.tensor([3.0, 700.0])).any()


def test_maps_of_odd_size_come_back_to_their_size():
    widths, x = [8] * 4, latents(3, (7, 13))
    seen = []
    unet = make(widths=widths, layers=1)
    for block in unet.down_blocks:
        block.register_forward_hook(lambda _module, _given, maps: seen.append(tuple(maps[-1].shape[2:])))
    assert unet(x, torch.tensor([3.0, 700.0])).shape == x.shape
    assert seen == [(4, 7), (2, 4), (1, 2), (1, 2)]


@pytest.mark.parametrize("keys", [{"attention": [True]}, {"attention": [0, 1, 1]}, {"head_dim": 5}, {"widths": []}])
def test_a_network_that_cannot_be_is_a_config_error(keys):
    with pytest.raises(ValidationError):
        make(**keys)
