"""Denoisers that are told words: attention by hand and by diffusers, padding, silence, and tokens that decide the answer."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.blocks import CrossAttention, heard_tokens, refuse_tokens
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition
from ldmctl.training.engine import recompute

SMALL = {"dit": {"width": 32, "depth": 2, "head_dim": 16}, "unet": {"widths": [8, 16], "layers": 1, "norm_groups": 4}}
KINDS = [("dit", {}), ("dit", {"shared": True}), ("unet", {})]
each = pytest.mark.parametrize(("name", "keys"), KINDS, ids=["dit", "shared dit", "unet"])
TIMES = torch.tensor([3.0, 700.0])
WIDTH = 6


def make(name: str, **keys: object) -> nn.Module:
    """A small denoiser that listens to tokens of 6 numbers, as it is made."""
    torch.manual_seed(0)
    plugin = registry.load("denoiser", name)
    context = {"token_dim": WIDTH, **keys.pop("context", {})}
    return plugin(plugin.Config(type=name, **{**SMALL[name], **keys}), channels=3, size=(8, 8), **context)


def awake(name: str, **keys: object) -> nn.Module:
    """One where no parameter is zero any more, so that every part matters."""
    denoiser = make(name, **keys)
    for parameter in denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return denoiser.eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def words(*counts: int, length: int = 0) -> Condition:
    """As many tokens in each row, padded with numbers that must not matter."""
    length = length or max(counts)
    tokens = noise(len(counts), max(counts), WIDTH, seed=2)
    padded = torch.cat([tokens, 50 * noise(len(counts), length - max(counts), WIDTH, seed=3)], dim=1)
    mask = torch.arange(length) < torch.tensor(counts)[:, None]
    return Condition(tokens=torch.where(mask[:, :, None], padded, 77.0), mask=mask)


def far(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().amax(dim=(1, 2, 3)).min() > 1e-3)


# -- known answers -------------------------------------------------------------------


def test_cross_attention_by_hand():
    """Two heads of 2 with projections that copy; the first row hears two tokens of three, the second one."""
    attention = CrossAttention(4, heads=2)
    with torch.no_grad():
        for layer, weight in (
            (attention.to_q, torch.eye(4)),
            (attention.to_out, torch.eye(4)),
            (attention.to_kv, torch.eye(4).repeat(2, 1)),
        ):
            layer.weight.copy_(weight)
    pixels, heard, counts = noise(2, 5, 4), noise(2, 3, 4, seed=2), (2, 1)
    said = attention(pixels, heard, torch.tensor([[1, 1, 0], [1, 0, 0]]).bool())

    for row, pixel, head in itertools.product(range(2), range(5), range(2)):
        part = slice(2 * head, 2 * head + 2)
        unit = lambda vector: vector / vector.square().mean().sqrt()
        query = unit(pixels[row, pixel, part])
        shares = torch.stack([(query @ unit(heard[row, token, part]) / 2**0.5).exp() for token in range(counts[row])])
        expected = sum(share * heard[row, token, part] for token, share in enumerate(shares / shares.sum()))
        torch.testing.assert_close(said[row, pixel, part], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("widths", "attended", "layers"), [((8, 16), (0, 1), 1), ((8, 16, 16), (1, 0, 1), 2), ((8,), (1,), 1)])
@pytest.mark.parametrize("size", [(8, 8), (6, 14)])
def test_weights_from_diffusers_conditional_unet_give_its_output(widths, attended, layers, size):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=widths,
        layers_per_block=layers,
        norm_num_groups=4,
        down_block_types=tuple("CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attended),
        up_block_types=tuple("CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attended)),
        cross_attention_dim=WIDTH,
        attention_head_dim=tuple(width // 4 for width in widths),  # which is their number
        use_linear_projection=True,
    ).eval()
    ours = make("unet", widths=list(widths), attention=[bool(here) for here in attended], layers=layers, head_dim=4).eval()
    ours.load_state_dict(theirs.state_dict())
    x, told = noise(2, 3, *size), words(5, 2, length=7)
    with torch.no_grad():
        expected = theirs(x, TIMES, told.tokens, encoder_attention_mask=told.mask.long()).sample
        torch.testing.assert_close(ours(x, TIMES, told), expected, atol=1e-4, rtol=0)
        unmasked = theirs(x, TIMES, told.tokens).sample
        torch.testing.assert_close(ours(x, TIMES, Condition(tokens=told.tokens)), unmasked, atol=1e-4, rtol=0)
    assert far(unmasked, expected)


@each
def test_a_new_network_predicts_zero(name, keys):
    assert not make(name, **keys)(noise(2, 3, 8, 8), TIMES, words(3, 2)).any()


def test_a_new_transformer_block_is_deaf_until_it_has_learned():
    """All but the cross-attention's output moved away from zero."""
    dit = make("dit")
    for key, parameter in dit.named_parameters():
        if not parameter.any() and "cross_attention" not in key:
            nn.init.normal_(parameter, std=0.1)
    x = noise(2, 3, 8, 8)
    assert dit(x, TIMES, None).any() and torch.equal(dit(x, TIMES, words(3, 2)), dit(x, TIMES, None))


@each
def test_gradient_reaches_every_parameter(name, keys):
    denoiser = awake(name, **keys)
    denoiser(noise(2, 3, 8, 8), TIMES, words(3, 2)).square().sum().backward()
    assert [key for key, value in denoiser.named_parameters() if value.grad is None or not value.grad.any()] == []


@each
def test_without_words_every_parameter_takes_part_all_the_same(name, keys):
    """As training on several devices wants it, where one rank may have drawn no condition."""
    denoiser = awake(name, **keys)
    denoiser(noise(2, 3, 8, 8), TIMES, None).square().sum().backward()
    assert [key for key, value in denoiser.named_parameters() if value.grad is None] == []


# -- which tokens count ---------------------------------------------------------------


@each
@pytest.mark.parametrize("other", [6, 32, 77])
def test_the_output_does_not_depend_on_the_padding(name, keys, other):
    denoiser, x = awake(name, **keys), noise(2, 3, 8, 8)
    with torch.no_grad():
        out = denoiser(x, TIMES, words(5, 2))
        torch.testing.assert_close(denoiser(x, TIMES, words(5, 2, length=other)), out, atol=1e-6, rtol=0)
        assert far(denoiser(x, TIMES, words(4, 1)), out)


@each
def test_each_token_counts_in_its_own_row_alone(name, keys):
    denoiser, x, told = awake(name, **keys), noise(2, 3, 8, 8), words(5, 2)
    with torch.no_grad():
        out = denoiser(x, TIMES, told)
        for row in range(2):
            changed = told.tokens.clone()
            changed[row, 1] += 1
            moved = (denoiser(x, TIMES, told._replace(tokens=changed)) - out).abs().amax(dim=(1, 2, 3))
            assert moved[row] > 1e-3 and moved[1 - row] < 1e-6
        alone = denoiser(x[1:], TIMES[1:], Condition(tokens=told.tokens[1:, :2]))
    torch.testing.assert_close(alone, out[1:], atol=1e-5, rtol=0)


@each
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_row_without_any_token_hears_what_one_hears_without_words_and_nothing_is_nan(name, keys, bf16):
    denoiser, x = awake(name, **keys), noise(2, 3, 8, 8)
    told = words(5, 0)
    told = told._replace(tokens=told.tokens.requires_grad_())
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = denoiser(x, TIMES, told)
        silent = [denoiser(x, TIMES, none) for none in (None, Condition(), Condition(tokens=torch.zeros(2, 0, WIDTH)))]
    out.square().sum().backward()
    assert all(torch.equal(silent[0], other) for other in silent)
    torch.testing.assert_close(out[1], silent[0][1], atol=1e-5 if not bf16 else 0.02, rtol=0)
    assert far(out[:1], silent[0][:1])
    assert told.tokens.grad[0].abs().amax(dim=1).min() > 0 and not told.tokens.grad[1].any()
    assert all(parameter.grad.isfinite().all() for parameter in denoiser.parameters())


def test_what_stands_in_the_padding_may_even_be_nan():
    told = words(3, 0, length=4)
    told.tokens[~told.mask] = float("nan")
    tokens, mask = heard_tokens(noise(2, 3, 8, 8), WIDTH, told)
    assert torch.equal(tokens[0, :3], told.tokens[0, :3]) and not tokens[0, 3:].any() and not tokens[1].any()
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]


@each
def test_float16_tokens_of_a_cache_are_taken(name, keys):
    denoiser, x, told = awake(name, **keys), noise(2, 3, 8, 8), words(5, 2)
    half = told._replace(tokens=told.tokens.half())
    torch.testing.assert_close(denoiser(x, TIMES, half), denoiser(x, TIMES, told), atol=0.01, rtol=0)


@each
def test_tokens_join_vectors_and_maps(name, keys):
    denoiser, x = awake(name, **keys, context={"vector_dim": 5, "map_channels": 2}), noise(2, 3, 8, 8)
    full = words(5, 2)._replace(vector=noise(2, 5, seed=4), maps=noise(2, 2, 8, 8, seed=5))
    with torch.no_grad():
        out = denoiser(x, TIMES, full)
        for part in ("vector", "tokens", "maps"):
            assert far(denoiser(x, TIMES, full._replace(**{part: getattr(full, part) + 1})), out), part


def test_a_denoiser_of_your_own_may_refuse_tokens():
    refuse_tokens("mine", 0)
    with pytest.raises(PluginError, match="The denoiser 'mine' takes vectors and maps, not tokens"):
        refuse_tokens("mine", 16)


# -- precision, memory, compilers ------------------------------------------------------


@each
def test_bf16_is_close(name, keys):
    denoiser, x, told = awake(name, **keys), noise(2, 3, 8, 8), words(5, 2, length=7)
    with torch.no_grad():
        exact = denoiser(x, TIMES, told)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = denoiser(x, TIMES, told)
    assert rounded.dtype == torch.float32 and (rounded - exact).norm() < 0.03 * exact.norm()


@each
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_blocks_computed_again_give_the_same_bit_for_bit(name, keys, bf16):
    denoiser, x, seen = awake(name, **keys, dropout=0.2).train(), noise(2, 3, 8, 8), []
    for again in (False, True):
        recompute(denoiser, again)
        denoiser.zero_grad()
        told = words(5, 2, length=7)
        told = told._replace(tokens=told.tokens.requires_grad_())
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = denoiser(x, TIMES, told)
        out.square().sum().backward()
        seen.append([out.detach(), told.tokens.grad, *(parameter.grad.clone() for parameter in denoiser.parameters())])
    assert len(seen[0]) > 10 and all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_hidden_tokens_have_heard_the_words():
    dit, x = awake("dit"), noise(2, 3, 8, 8)
    for block, heard in ((0, False), (1, True)):
        out, hidden = dit.forward_with_hidden(x, TIMES, words(5, 2), block=block)
        assert torch.equal(out, dit(x, TIMES, words(5, 2)))
        assert torch.equal(hidden, dit.forward_with_hidden(x, TIMES, None, block=block)[1]) is not heard


# -- learning ---------------------------------------------------------------------------


@each
def test_it_learns_an_answer_that_the_words_decide(name, keys):
    """The picture is bright where the first word says so, dark otherwise; a second word and the padding say nothing of it."""
    denoiser = make(name, **keys)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=4e-3)
    random = torch.Generator().manual_seed(0)
    vocabulary = noise(3, WIDTH, seed=7)

    def draw(count: int) -> tuple[Tensor, Condition]:
        answer = torch.randint(2, (count,), generator=random)
        others = torch.full((count, 1), 2)
        tokens = vocabulary[torch.cat([others, answer[:, None], others], dim=1)]
        mask = torch.tensor([True, True, False]).expand(count, 3)
        return 2.0 * answer - 1, Condition(tokens=tokens, mask=mask)

    for step in range(60):
        answer, told = draw(16)
        said = denoiser(noise(16, 3, 8, 8, seed=step), torch.full((16,), 500.0), told)
        (said - answer[:, None, None, None]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    answer, told = draw(32)
    with torch.no_grad():
        said = denoiser(noise(32, 3, 8, 8, seed=999), torch.full((32,), 500.0), told).mean(dim=(1, 2, 3))
    assert (said.sign() == answer).all() and (said - answer).abs().mean() < 0.3
