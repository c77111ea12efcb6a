"""Promises of every discriminator, and of the built-in ones in particular."""

import copy
from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from ldmctl import registry
from ldmctl.errors import PluginError
from ldmctl.testing import check_discriminator

SMALL = {"multiscale": {"widths": [4, 8]}, "patchgan": {"widths": [4, 8, 8]}}
NAMES = [plugin.name for plugin in registry.plugins("discriminator") if plugin.name in SMALL]
NORMS = ["group", "batch", "spectral", "none"]


def make(name: str = "patchgan", image_channels: int = 3, **keys: object):
    torch.manual_seed(0)
    plugin = registry.load("discriminator", name)
    return plugin(plugin.Config(type=name, **{**SMALL[name], **keys}), image_channels=image_channels)


def score(discriminator, image) -> torch.Tensor:
    return torch.stack([each.mean() for each in discriminator(image)]).mean()


def step(discriminator, image) -> None:
    """One optimizer step, as the loop makes it."""
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=1e-2)
    score(discriminator, image).backward()
    optimizer.step()
    optimizer.zero_grad()
    discriminator.after_step()


def test_the_built_in_discriminators_are_registered():
    assert NAMES == ["multiscale", "patchgan"]


@pytest.mark.parametrize(("name", "norm"), product(NAMES, NORMS))
def test_each_keeps_the_protocol_with_each_norm(name, norm):
    check_discriminator(registry.load("discriminator", name), **SMALL[name], norm=norm)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 64), (4, 41)])
def test_pictures_become_maps_of_logits(name, channels, size):
    maps = make(name, channels)(torch.rand(2, channels, size, size))
    assert maps
    assert all(each.shape[:2] == (2, 1) and each.numel() for each in maps)


@pytest.mark.parametrize(("name", "norm"), product(NAMES, NORMS))
def test_gradient_reaches_the_picture_and_every_parameter(name, norm):
    discriminator, image = make(name, norm=norm), torch.rand(2, 3, 32, 32, requires_grad=True)
    sum(each.square().sum() for each in discriminator(image)).backward()
    assert image.grad.any()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in discriminator.parameters())


# -- patches -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("widths", "flat", "side"),
    [
        ([4], [], 10),
        ([4, 4, 4], [], 46),
        ([4], [4], 16),  # arXiv:1611.07004, table 1 and section 6.1.2: these three
        ([4, 4, 4], [4], 70),
        ([4, 4, 4, 4, 4], [4], 286),
    ],
)
def test_a_patch_has_the_side_of_the_paper(widths, flat, side):
    discriminator, image = make(widths=widths, flat=flat, norm="none"), torch.rand(1, 3, 320, 320, requires_grad=True)
    logits = discriminator(image)[0]
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = image.grad.abs().sum((0, 1)).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [side, side]


def test_neighbouring_patches_lie_as_far_apart_as_the_strides_say():
    assert make(widths=[4, 4, 4])(torch.rand(1, 3, 256, 256))[0].shape == (1, 1, 31, 31)
    assert make(widths=[4, 4, 4], flat=[4])(torch.rand(1, 3, 256, 256))[0].shape == (1, 1, 30, 30)


@pytest.mark.parametrize("norm", ["group", "spectral", "none"])
def test_a_patch_sees_only_its_own_pixels(norm):
    discriminator, image = make(norm=norm), torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[..., -1] += 1
    same = torch.isclose(discriminator(image)[0], discriminator(changed)[0], atol=1e-7).all(dim=2).flatten()
    assert not same[-1]
    assert same[:3].all() or norm == "group"  # group statistics are of the whole picture


@pytest.mark.parametrize(
    ("name", "keys", "smallest"),
    [("patchgan", {}, 16), ("patchgan", {"flat": [8]}, 24), ("multiscale", {}, 16), ("multiscale", {"scales": 3}, 32)],
)
def test_too_small_pictures_are_refused(name, keys, smallest):
    discriminator = make(name, **keys)
    assert discriminator(torch.rand(1, 3, smallest, smallest))[-1].shape == (1, 1, 1, 1)
    with pytest.raises(PluginError, match=f"at least {smallest}x{smallest} and got {smallest - 1}x{smallest}"):
        discriminator(torch.rand(1, 3, smallest - 1, smallest))


@pytest.mark.parametrize("scales", [2, 3, 4])
def test_every_scale_is_a_patchgan_on_a_picture_half_as_large(scales):
    discriminator, image = make("multiscale", scales=scales, norm="none"), torch.rand(1, 3, 64, 64)
    maps = discriminator(image)
    assert [each.shape[-1] for each in maps] == [15, 7, 3, 1][:scales]
    coarsest = image.unfold(2, 2 ** (scales - 1), 2 ** (scales - 1)).unfold(3, 2 ** (scales - 1), 2 ** (scales - 1)).mean((-1, -2))
    torch.testing.assert_close(maps[-1], discriminator.scales[-1](coarsest))


# -- norms -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_by_default_no_batch_statistics_so_a_logit_does_not_depend_on_the_other_pictures(name):
    discriminator, image = make(name).train(), torch.rand(4, 3, 32, 32)
    assert not [module for module in discriminator.modules() if "Batch" in type(module).__name__]
    for whole, alone in zip(discriminator(image), discriminator(image[:1]), strict=True):
        torch.testing.assert_close(whole[:1], alone)


@pytest.mark.parametrize(("name", "norm"), product(NAMES, NORMS))
def test_a_forward_changes_nothing_so_both_players_and_micro_batches_may_ask_freely(name, norm):
    discriminator, image = make(name, norm=norm).train(), torch.rand(2, 3, 32, 32)
    before = {key: value.clone() for key, value in discriminator.state_dict().items()}
    first = discriminator(image)
    for _ in range(3):
        again = discriminator(image)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in discriminator.state_dict().items())


@pytest.mark.parametrize("norm", ["group", "spectral", "none"])
def test_gradients_of_micro_batches_add_up_to_that_of_the_batch(norm):
    image = torch.rand(8, 3, 32, 32)
    whole, parts = make(norm=norm), make(norm=norm)
    score(whole, image).backward()
    for micro in image.split(2):
        (score(parts, micro) / 4).backward()
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


def test_after_some_steps_the_largest_singular_value_of_every_convolution_is_one():
    discriminator = make(norm="spectral")
    for _ in range(20):
        step(discriminator, torch.rand(2, 3, 32, 32))
    found = []
    for layer in discriminator.patches.layers[::2]:
        taps = torch.eye(layer.weight[0].numel()).view(-1, *layer.weight.shape[1:])  # a picture for each tap of the kernel
        matrix = layer(torch.nn.functional.pad(taps, (1, 1, 1, 1)))  # the patch in the middle sees it whole
        middle = matrix[:, :, matrix.shape[2] // 2, matrix.shape[3] // 2] - layer.bias
        found.append(torch.linalg.matrix_norm(middle.detach(), 2).item())
    assert len(found) == 4
    assert found == pytest.approx([1.0] * 4, rel=0.02)


def test_a_spectral_norm_moves_once_per_step_in_after_step():
    discriminator = make(norm="spectral")
    before = discriminator.patches.layers[0].u.clone()
    score(discriminator, torch.rand(2, 3, 32, 32)).backward()
    assert torch.equal(discriminator.patches.layers[0].u, before)
    with torch.no_grad():
        discriminator.patches.layers[0].weight.add_(0.1 * torch.randn_like(discriminator.patches.layers[0].weight))
    assert list(discriminator.after_step()) == []
    assert not torch.equal(discriminator.patches.layers[0].u, before)
    assert discriminator.patches.layers[0].u.norm().item() == pytest.approx(1)


def test_a_spectral_convolution_learns_as_that_of_pytorch():
    own = make(norm="spectral").patches.layers[2].double()
    plain = torch.nn.Conv2d(4, 8, 4, stride=2, padding=1).double()
    plain.load_state_dict({"weight": own.weight, "bias": own.bias})
    theirs = torch.nn.utils.parametrizations.spectral_norm(plain, n_power_iterations=1).eval()  # eval: u and v stay
    theirs.parametrizations.weight[0]._u.copy_(own.u)
    v = own.weight.detach().flatten(1).T @ own.u
    theirs.parametrizations.weight[0]._v.copy_(v / v.norm())
    image = torch.randn(2, 4, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(own(image), theirs(image))
    for layer in (own, theirs):
        layer(image).square().sum().backward()
    torch.testing.assert_close(own.weight.grad, theirs.parametrizations.weight.original.grad)


@pytest.mark.parametrize(("name", "norm"), product(NAMES, NORMS))
def test_copies_and_restored_states_go_on_alike(name, norm):
    one, image = make(name, norm=norm), torch.rand(2, 3, 32, 32)
    step(one, image)
    other, copied = make(name, norm=norm), copy.deepcopy(one)
    other.load_state_dict(one.state_dict())
    for each in (one, other, copied):
        step(each, image)
    for each in (other, copied):
        assert all(torch.equal(value, each.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_frozen_parameters_let_the_gradient_through_to_the_picture(norm):
    discriminator, image = make(norm=norm).requires_grad_(False), torch.rand(2, 3, 32, 32, requires_grad=True)
    score(discriminator, image).backward()
    assert image.grad.any()
    assert all(parameter.grad is None for parameter in discriminator.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_can_be_derived_twice_as_a_gradient_penalty_asks(norm):
    discriminator, image = make(norm=norm), torch.rand(4, 3, 32, 32, requires_grad=True)
    gradient = torch.autograd.grad(score(discriminator, image), image, create_graph=True)[0]
    gradient.square().sum().backward()
    first = discriminator.patches.layers[0]
    assert first.weight.grad.isfinite().all() and first.weight.grad.any()


@pytest.mark.parametrize("norm", NORMS)
def test_logits_under_autocast_are_those_without_up_to_rounding(norm):
    discriminator, image = make(norm=norm), torch.rand(4, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = discriminator(image)[0]
    exact = discriminator(image)[0].detach()
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()


def test_batch_norm_is_that_of_pytorch():
    own = make(norm="batch").patches.layers[3]
    x = torch.randn(4, 8, 5, 5)
    torch.testing.assert_close(own(x), torch.nn.BatchNorm2d(8)(x))


def _on_a_rank(rank: int, image: torch.Tensor, meeting: str, out) -> None:
    """Half of the batch: logits, gradient of the picture, gradients of a loss that holds a gradient penalty, averaged as DDP does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    out[rank] = _learned(image[2 * rank : 2 * rank + 2])
    dist.destroy_process_group()


def _learned(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    discriminator, image = make(norm="batch"), rows.clone().requires_grad_()
    logits = discriminator(image)[0]
    loss = logits.square().mean()
    gradient = torch.autograd.grad(logits.square().flatten(1).mean(1).sum(), image, create_graph=True)[0]
    (loss + gradient.square().flatten(1).sum(1).mean()).backward()
    gradients = [parameter.grad for parameter in discriminator.parameters()]
    for each in gradients:
        if dist.is_initialized():
            dist.all_reduce(each)
            each /= dist.get_world_size()
    return logits.detach(), gradient.detach(), gradients


@pytest.mark.slow
def test_batch_norm_over_two_ranks_is_that_of_one_even_in_a_gradient_penalty(tmp_path):
    """latent-diffusion#158, MONAI#352: several devices trained worse than one, each by its own statistics."""
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * torch.tensor([1.0, 1, 3, 5]).view(4, 1, 1, 1)
    logits, gradient, gradients = _learned(image)
    with multiprocessing.Manager() as manager:
        out = manager.dict()
        multiprocessing.spawn(_on_a_rank, args=(image, str(tmp_path / "meeting"), out), nprocs=2)
        parts = [out[rank] for rank in range(2)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), gradient, rtol=1e-3, atol=1e-5)
    for part in parts:
        for one, other in zip(gradients, part[2], strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
