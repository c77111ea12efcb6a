"""The diffusion transformer: places, bounded attention, modulation, padding, and presets that are as large as they say."""

import math
import re

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.blocks import RotaryAttention, axial_rotary, gated_width, modulated_norm, patchify, rotate, unpatchify
from ldmctl.config import presets
from ldmctl.config.documents import read_yaml
from ldmctl.diffusion.network import Network
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition
from ldmctl.testing import check_denoiser
from ldmctl.training.costs import saved_bytes
from ldmctl.training.engine import recompute

DiT = registry.load("denoiser", "dit")
SMALL = {"width": 32, "depth": 2, "head_dim": 16}
BOTH = {"vector_dim": 5, "map_channels": 2}
TIMES = torch.tensor([3.0, 700.0])
SIZED = [name for name in presets.names("fit-diffusion") if re.fullmatch("(dit|unet)-(mini|s|m|b|l|xl)", name)]


def make(*, channels: int = 3, size: tuple[int, int] = (8, 8), context: dict | None = None, **keys: object) -> nn.Module:
    """A small dit as it is made, which predicts zero."""
    torch.manual_seed(0)
    return DiT(DiT.Config(type="dit", **{**SMALL, **keys}), channels=channels, size=size, **(context or {}))


def awake(**keys: object) -> nn.Module:
    """One where no parameter is zero any more, so that every part matters."""
    dit = make(**keys)
    for parameter in dit.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return dit


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def given() -> Condition:
    return Condition(vector=noise(2, 5, seed=2), maps=noise(2, 2, 8, 8, seed=3))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# -- promises of every denoiser ------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"shared": True}, {"patch": 3, "dropout": 0.1}], ids=["own", "shared", "padded"])
def test_it_keeps_the_promises_of_all(keys):
    check_denoiser(DiT, **{**SMALL, **keys})


@pytest.mark.parametrize("shared", [False, True])
def test_a_new_network_predicts_zero(shared):
    assert not make(shared=shared, context=BOTH)(noise(2, 3, 8, 8), TIMES, given()).any()


@pytest.mark.parametrize("shared", [False, True])
def test_gradient_reaches_every_parameter(shared):
    dit = awake(shared=shared, context=BOTH)
    dit(noise(2, 3, 8, 8), TIMES, given()).square().sum().backward()
    assert [name for name, value in dit.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_every_part_of_a_condition_counts_and_missing_maps_are_zeros():
    dit, x, full = awake(context=BOTH).eval(), noise(2, 3, 8, 8), given()
    out = dit(x, TIMES, full)
    for other in (full._replace(vector=full.vector + 1), full._replace(maps=full.maps + 1), Condition(), None):
        assert not torch.allclose(dit(x, TIMES, other), out, atol=1e-3)
    torch.testing.assert_close(dit(x, TIMES, Condition(vector=full.vector)), dit(x, TIMES, full._replace(maps=torch.zeros_like(full.maps))))


def test_what_is_known_of_pure_noise_is_learned_the_mean_picture():
    """Where the answer depends on the place alone: rotary positions by themselves do not tell it."""
    dit, mean = make(), noise(3, 8, 8)
    optimizer = torch.optim.Adam(dit.parameters(), lr=4e-3)
    losses = []
    for step in range(120):
        loss = (dit(noise(8, 3, 8, 8, seed=step), torch.full((8,), 999.0)) - mean).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 0.8 and losses[-1] < 0.2


# -- tokens and places ---------------------------------------------------------------


def test_patches_are_read_row_by_row_and_put_back():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    tokens = patchify(x, 2)
    assert tokens[0, :, :4].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    wide = noise(2, 3, 4, 10)
    assert torch.equal(unpatchify(tokens, (2, 2), 2), x) and torch.equal(unpatchify(patchify(wide, 2), (2, 5), 2), wide)


@pytest.mark.parametrize(("size", "patch", "grid"), [((16, 16), None, (16, 16)), ((17, 12), None, (9, 6)), ((7, 7), 3, (3, 3))])
def test_a_patch_is_one_pixel_of_small_latents_and_two_of_larger_ones_unless_said(size, patch, grid):
    assert make(size=size, patch=patch).grid == grid


@pytest.mark.parametrize(("channels", "size"), [(3, (8, 8)), (1, (7, 7)), (4, (5, 12)), (2, (1, 1))])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_the_prediction_has_the_shape_of_the_latent(channels, size, patch):
    x = noise(2, channels, *size)
    out = awake(channels=channels, size=size, patch=patch)(x, TIMES)
    assert out.shape == x.shape and out.any()


def test_what_the_last_patches_lack_is_zeros():
    odd, even, x = awake(size=(7, 7), patch=2), awake(size=(8, 8), patch=2), noise(2, 3, 7, 7)
    torch.testing.assert_close(odd(x, TIMES), even(nn.functional.pad(x, (0, 1, 0, 1)), TIMES)[:, :, :7, :7])


def test_weights_serve_latents_of_any_size():
    first, second, x = awake(size=(8, 8)), awake(size=(5, 12)), noise(2, 3, 5, 12)
    second.load_state_dict(first.state_dict())
    assert {"positions", "rotary"}.isdisjoint(first.state_dict())
    torch.testing.assert_close(first(x, TIMES), second(x, TIMES))


def test_a_rotation_by_hand():
    """A head of 4 has one angle an axis, of frequency 1: its first pair turns by the row, its second by the column."""
    rotary = axial_rotary(3, 5, 4)
    for axis, along in ((0, lambda place: place // 5), (1, lambda place: place % 5)):
        unit = torch.eye(4)[axis].expand(1, 15, 1, 4)
        turned = rotate(unit, rotary)[0, :, 0]
        expected = [[math.cos(along(a) - along(b)) for b in range(15)] for a in range(15)]
        torch.testing.assert_close(turned @ turned.T, torch.tensor(expected))


def test_logits_depend_on_the_distance_of_places_alone():
    rows, columns, rotary = 5, 6, axial_rotary(5, 6, 16)
    query, key = (rotate(noise(1, 1, 1, 16, seed=seed).expand(1, rows * columns, 1, 16), rotary)[0, :, 0] for seed in (1, 2))
    logits = (query @ key.T).view(rows, columns, rows, columns)
    torch.testing.assert_close(logits[1:, 2:, 1:, 2:], logits[:-1, :-2, :-1, :-2], atol=1e-4, rtol=0)
    assert logits.std() > 0.1 and not torch.allclose(logits[0, 0], logits[2, 1])


# -- attention, norms and MLP --------------------------------------------------------


def test_attention_stays_soft_however_large_its_weights():
    """Two tokens whose values are unit vectors, so that the output shows their shares: logits differ by 2 sqrt(4) at most."""
    attention = RotaryAttention(4, heads=1)
    with torch.no_grad():
        attention.to_qkv.weight.copy_(torch.cat([1e6 * noise(8, 4), torch.eye(4)]))
        attention.to_out.weight.copy_(torch.eye(4))
        shares = attention(torch.eye(4)[None, :2], axial_rotary(1, 2, 4))[0, :, :2]
    torch.testing.assert_close(shares.sum(1), torch.ones(2))
    assert shares.min() >= 1 / (1 + math.exp(4)) - 1e-6


def test_the_size_of_query_and_key_weights_does_not_matter():
    attention, tokens, rotary = RotaryAttention(32, heads=2), noise(2, 6, 32), axial_rotary(2, 3, 16)
    before = attention(tokens, rotary)
    with torch.no_grad():
        attention.to_qkv.weight[:64] *= 1000
    torch.testing.assert_close(attention(tokens, rotary), before, atol=1e-4, rtol=1e-3)


def test_norm_and_modulation_do_not_round_under_autocast():
    tokens, shift, scale = noise(2, 6, 32), noise(2, 1, 32, seed=2), noise(2, 1, 32, seed=3)
    expected = tokens / tokens.square().mean(2, keepdim=True).sqrt() * (1 + scale) + shift
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(modulated_norm(tokens, shift, scale), expected)


@pytest.mark.parametrize("shared", [False, True])
def test_bf16_is_close_and_the_sum_over_blocks_stays_float32(shared):
    dit, x = awake(shared=shared, depth=4), noise(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, hidden = dit.forward_with_hidden(x, TIMES, block=4)
    exact = dit(x, TIMES)
    assert rounded.dtype == hidden.dtype == torch.float32
    assert (rounded - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(("width", "ratio", "hidden"), [(384, 4, 1024), (1152, 4, 3072), (1024, 4, 2736), (384, 2, 512), (8, 0.1, 16)])
def test_a_swiglu_is_as_wide_as_makes_it_as_large_as_the_mlp(width, ratio, hidden):
    assert gated_width(width, ratio) == hidden
    assert hidden == 16 or abs(3 * hidden - 2 * ratio * width) <= 24


@pytest.mark.parametrize(("shared", "count"), [(False, 48_684), (True, 42_732)])
def test_parameters_counted_by_hand(shared, count):
    """Width D = 32, hidden 80, patches of 3*2*2: embedding, time, vector; the blocks; modulation and projection out."""
    around = (12 * 32 + 32) + (256 * 32 + 32 + 32 * 32 + 32) + (5 * 32 + 32) + (32 * 64 + 64) + (32 * 12 + 12)
    modulation, block = 32 * 192 + 192, 4 * 32 * 32 + 2 * 16 + 3 * 32 * 80
    assert count == around + 2 * block + (modulation + 2 * 192 if shared else 2 * modulation)
    assert parameters(make(patch=2, shared=shared, context={"vector_dim": 5})) == count


# -- memory, hidden layers, files -----------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"shared": True, "dropout": 0.3}], ids=["own", "shared with dropout"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_blocks_computed_again_give_the_same_bit_for_bit(keys, bf16):
    dit, x, seen = awake(**keys), noise(2, 3, 8, 8), []
    for again in (False, True):
        recompute(dit, again)
        dit.zero_grad()
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = dit(x, TIMES)
        out.square().sum().backward()
        seen.append([out.detach(), *(parameter.grad.clone() for parameter in dit.parameters())])
    assert len(seen[0]) > 10 and all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_blocks_computed_again_keep_less():
    dit, x = awake(depth=4), noise(2, 3, 8, 8)
    whole = saved_bytes(dit, lambda: dit(x, TIMES))
    recompute(dit, True)
    assert 0 < saved_bytes(dit, lambda: dit(x, TIMES)) < 0.4 * whole


def test_hidden_tokens_are_those_of_a_network_that_ends_there():
    dit, x = awake(depth=3), noise(2, 3, 8, 8)
    short = awake(depth=2)
    short.load_state_dict({name: value for name, value in dit.state_dict().items() if not name.startswith("blocks.2.")})
    out, hidden = dit.forward_with_hidden(x, TIMES, block=2)
    assert hidden.shape == (2, 64, 32)
    torch.testing.assert_close(hidden, short.forward_with_hidden(x, TIMES, block=2)[1])
    torch.testing.assert_close(out, dit(x, TIMES))
    with pytest.raises(PluginError, match="no hidden layer after block 4: this dit has 3"):
        dit.forward_with_hidden(x, TIMES, block=4)


@pytest.mark.parametrize("block", [0, 2])
def test_a_network_shows_tokens_with_the_labels_and_the_dropped_ones_of_forward(block):
    network = Network(awake(context={"vector_dim": 5}), Vectors())
    x, labels, dropped = noise(2, 3, 8, 8), torch.tensor([1, 4]), torch.tensor([False, True])
    for told in ((labels, None), (labels, dropped)):
        out, hidden = network(x, TIMES, *told, block=block)
        assert torch.equal(out, network(x, TIMES, *told))
        condition = network.condition(*told)
        assert torch.equal(hidden, network.denoiser.forward_with_hidden(x, TIMES, condition, block=block)[1])
    all_told, one_dropped = (network(x, TIMES, labels, who, block=2)[1] for who in (None, dropped))
    assert torch.equal(all_told[0], one_dropped[0]) and not torch.equal(all_told[1], one_dropped[1])


def test_a_network_whose_denoiser_shows_no_tokens_says_which_does():
    with pytest.raises(PluginError, match="The denoiser Identity shows no hidden layers; dit does"):
        Network(torch.nn.Identity(), None)(noise(2, 3, 8, 8), TIMES, block=1)


class Vectors(torch.nn.Module):
    """A conditioner of one-hot labels."""

    def encode(self, given):
        return Condition(vector=torch.nn.functional.one_hot(given, 5).float())

    def null(self, count):
        return Condition(vector=torch.zeros(count, 5))


def test_its_state_is_all_that_it_knows():
    one, other, x = awake(context=BOTH), make(context=BOTH), noise(2, 3, 8, 8)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, TIMES, given()), other(x, TIMES, given()))


# -- configs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"width": 40}, "head_dim=16 does not divide width=40"),
        ({"head_dim": 6, "width": 36}, "head_dim=6 is not a multiple of 4: pairs of it are turned by the row"),
        ({"depth": 0}, "greater than 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"shared": 1}, "valid boolean"),
    ],
)
def test_a_network_that_cannot_be_is_a_config_error_that_says_why(keys, said):
    with pytest.raises(ValidationError, match=said):
        make(**keys)


def size_of(preset: str) -> int:
    """Parameters of a preset's denoiser for latents of 4x32x32, counted without making them."""
    raw = read_yaml(presets.text("fit-diffusion", preset), source=preset)["denoiser"]
    plugin = registry.load("denoiser", raw["type"])
    with torch.device("meta"):
        return parameters(plugin(plugin.Config(**raw), channels=4, size=(32, 32)))


def test_there_are_presets_by_size():
    assert SIZED == ["dit-b", "dit-l", "dit-mini", "dit-s", "dit-xl", "unet-l", "unet-m", "unet-s"]


@pytest.mark.parametrize("name", SIZED)
def test_a_preset_is_as_large_as_it_says(name):
    assert f"# {size_of(name):,} parameters for latents of 4x32x32" in presets.text("fit-diffusion", name)


@pytest.mark.parametrize(("name", "millions"), [("dit-s", 33), ("dit-b", 130), ("dit-l", 458), ("dit-xl", 675)])
def test_sizes_are_those_of_the_paper(name, millions):
    """arXiv:2212.09748, table 1; its networks have a table of classes and variances to predict besides."""
    assert size_of(name) == pytest.approx(millions * 1e6, rel=0.03)
