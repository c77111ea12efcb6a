"""Promises of every autoencoder, and of the VAE and the VQ-VAE in particular."""

import copy

import pytest
import torch
from torch import nn

from ldmctl import registry
from ldmctl.blocks import Attention, Codebook
from ldmctl.blocks.codebook import DISTANCES
from ldmctl.protocols import Reconstruction

SMALL = {
    "fsq": {"widths": [8, 16, 16], "layers": 1, "levels": [5, 4, 3], "norm_groups": 8},
    "vae": {"widths": [8, 16, 16], "layers": 1, "channels": 3, "norm_groups": 8},
    "vqvae": {"widths": [8, 16, 16], "layers": 1, "channels": 3, "norm_groups": 8, "codebook_size": 32},
    "identity": {},
}
NAMES = [plugin.name for plugin in registry.plugins("autoencoder") if plugin.name in SMALL]
TRAINED = [name for name in NAMES if name != "identity"]


def make(name: str, image_channels: int = 1, **keys: object) -> nn.Module:
    torch.manual_seed(0)
    plugin = registry.load("autoencoder", name)
    return plugin(plugin.Config(type=name, **{**SMALL[name], **keys}), image_channels=image_channels)


def pictures(channels: int = 1, size: int = 28) -> torch.Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_built_in_autoencoders_are_registered():
    assert set(NAMES) == set(SMALL)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_shapes_are_as_promised(name, channels, size):
    autoencoder, image = make(name, channels), pictures(channels, size)
    moments = autoencoder.encode(image)
    latent = autoencoder.draw(moments, torch.Generator().manual_seed(0))
    assert moments.shape[2:] == latent.shape[2:] == (size // autoencoder.factor, size // autoencoder.factor)
    assert latent.shape[1] == autoencoder.channels
    assert autoencoder.decode(latent).shape == image.shape
    assert autoencoder.rescale in ("channel", "common")
    reconstruction = autoencoder(image, torch.Generator().manual_seed(0))
    assert isinstance(reconstruction, Reconstruction)
    assert reconstruction.image.shape == image.shape
    assert all(value.shape == () for value in reconstruction.penalties.values())
    assert not any(value.requires_grad for value in reconstruction.facts.values())


@pytest.mark.parametrize("name", NAMES)
def test_forward_changes_no_state(name):
    autoencoder = make(name).train()
    before = copy.deepcopy(autoencoder.state_dict())
    autoencoder(pictures())
    assert all(torch.equal(before[key], value) for key, value in autoencoder.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_gives_the_same_picture(name):
    autoencoder = make(name)
    first, second, other = (autoencoder(pictures(), torch.Generator().manual_seed(seed)).image for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert torch.equal(first, other) == (name != "vae")


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_encode_draw_decode(name):
    autoencoder = make(name)
    latent = autoencoder.draw(autoencoder.encode(pictures()), torch.Generator().manual_seed(3))
    assert torch.equal(autoencoder.decode(latent), autoencoder(pictures(), torch.Generator().manual_seed(3)).image)


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_from_a_state_dict(name):
    autoencoder = make(name)
    other = make(name)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(autoencoder.state_dict())
    seed = torch.Generator().manual_seed
    assert torch.equal(autoencoder(pictures(), seed(0)).image, other(pictures(), seed(0)).image)


@pytest.mark.parametrize("name", TRAINED)
def test_gradient_reaches_every_parameter(name):
    autoencoder = make(name)
    reconstruction = autoencoder(pictures(), torch.Generator().manual_seed(0))
    (reconstruction.image.square().mean() + sum(reconstruction.penalties.values())).backward()
    silent = [key for key, value in autoencoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert [key for key in silent if not key.endswith("to_k.bias")] == []  # softmax does not see a shift of all keys


@pytest.mark.parametrize("name", TRAINED)
def test_pictures_stay_float32_under_autocast(name):
    autoencoder = make(name)
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction = autoencoder(pictures())
        assert autoencoder.encode(pictures()).dtype == torch.float32
    assert reconstruction.image.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in reconstruction.penalties.values())


@pytest.mark.parametrize("name", ["vae", "vqvae"])
@pytest.mark.parametrize("size", [28, 32])
def test_weights_from_diffusers_give_its_output(name, size):
    diffusers = pytest.importorskip("diffusers")
    shape = {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 1,
        "latent_channels": 3,
        "norm_num_groups": 8,
    }
    ours, image = make(name, 3).eval(), pictures(3, size)
    with torch.no_grad():
        if name == "vae":
            theirs = diffusers.AutoencoderKL(**shape).eval()
            ours.load_state_dict(theirs.state_dict())
            moments = theirs.encode(image).latent_dist.parameters
        else:
            theirs = diffusers.VQModel(**shape, num_vq_embeddings=32).eval()
            nn.init.normal_(theirs.quantize.embedding.weight)
            result = ours.load_state_dict(theirs.state_dict(), strict=False)
            assert result.missing_keys == ["quantize.uses", "quantize.steps"]
            assert not result.unexpected_keys
            moments = theirs.encode(image).latents
        torch.testing.assert_close(ours.encode(image), moments, atol=1e-4, rtol=0)
        latent = ours.draw(moments, torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours.decode(latent), theirs.decode(latent).sample, atol=1e-4, rtol=0)


def test_group_norms_adapt_to_widths_that_32_does_not_divide():
    groups = {module.num_groups for module in make("vae", widths=[12, 20], norm_groups=32).modules() if isinstance(module, nn.GroupNorm)}
    assert groups == {4}


def test_attention_in_bfloat16_agrees_with_float32():
    torch.manual_seed(0)
    attention, x = Attention(16, heads=2, norm_groups=8), torch.randn(2, 16, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x)
    torch.testing.assert_close(rounded.float(), attention(x), atol=0.05, rtol=0)


# -- VAE -----------------------------------------------------------------------


def test_the_divergence_of_a_known_gaussian():
    vae = make("vae", kl_weight=2.0)
    mean, logvar = 1.5, -0.7
    nn.init.zeros_(vae.quant_conv.weight)
    with torch.no_grad():
        vae.quant_conv.bias.copy_(torch.tensor([mean] * 3 + [logvar] * 3))
    reconstruction = vae(pictures())
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, torch.tensor(logvar / 2).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(reconstruction.penalties["kl"], 2 * expected)
    torch.testing.assert_close(reconstruction.facts["kl_per_pixel"], expected * 3 / 4**2)


def test_draws_have_the_mean_and_deviation_of_the_moments():
    moments = torch.cat([torch.full((1, 3, 64, 64), 0.5), torch.full((1, 3, 64, 64), -2.0)], dim=1)
    latent = make("vae").draw(moments, torch.Generator().manual_seed(0))
    assert latent.mean().item() == pytest.approx(0.5, abs=0.02)
    assert latent.std().item() == pytest.approx(torch.tensor(-1.0).exp().item(), abs=0.02)


def test_extreme_log_variances_stay_finite():
    moments = torch.tensor([1e4, -1e4]).repeat(3).view(1, 6, 1, 1)
    assert make("vae").draw(moments).isfinite().all()


# -- VQ-VAE --------------------------------------------------------------------


def test_beta_weighs_the_commitment_and_not_the_codebook():
    vqvae = make("vqvae", commitment=0.25)
    features = vqvae.encode(pictures()).detach().requires_grad_()
    nearest = vqvae.lookup(vqvae.codes(features)).detach()
    distance = (features - nearest).square().mean().detach()
    penalties = vqvae(pictures()).penalties
    torch.testing.assert_close(penalties["commitment"], 0.25 * distance)
    torch.testing.assert_close(penalties["codebook"], distance)

    quantized = vqvae.quantize(features)
    (towards_codes,) = torch.autograd.grad(quantized.commitment, features, retain_graph=True)
    torch.testing.assert_close(towards_codes, 2 * (features - nearest).detach() / features.numel())
    assert torch.autograd.grad(quantized.codebook, features, allow_unused=True, retain_graph=True) == (None,)
    weight = vqvae.quantize.embedding.weight
    assert torch.autograd.grad(quantized.commitment, weight, allow_unused=True) == (None,)


def test_gradient_passes_straight_through_the_codes():
    codebook = Codebook(8, 3)
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    latent = codebook(features).latent
    assert torch.equal(latent, codebook.lookup(codebook.nearest(features)))
    slope = torch.randn_like(latent)
    assert torch.equal(torch.autograd.grad(latent, features, slope)[0], slope)


def test_the_nearest_code_is_the_nearest():
    torch.manual_seed(0)
    codebook = Codebook(512, 4)
    nn.init.normal_(codebook.embedding.weight)
    with torch.no_grad():
        codebook.embedding.weight.add_(100)
    features = torch.randn(5, 4, 60, 70) + 100  # more than is compared at a time
    assert DISTANCES < 5 * 60 * 70 * 512
    codes = codebook.nearest(features)
    distances = torch.cdist(features.movedim(1, -1).reshape(-1, 4).double(), codebook.embedding.weight.double())
    assert (codes.flatten() == distances.argmin(1)).double().mean() > 0.999
    torch.testing.assert_close(distances.gather(1, codes.view(-1, 1))[:, 0], distances.amin(1), atol=1e-5, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook.nearest(features), codes)


def test_codes_decode_to_the_same_picture_as_their_features():
    vqvae = make("vqvae").eval()
    features = vqvae.encode(pictures())
    codes = vqvae.codes(features)
    assert torch.equal(vqvae.codes(vqvae.lookup(codes)), codes)
    assert torch.equal(vqvae.decode(vqvae.lookup(codes)), vqvae.decode(features))


def test_facts_count_the_codes_of_the_batch():
    vqvae = make("vqvae")
    facts = vqvae(pictures()).facts
    codes = vqvae.codes(vqvae.encode(pictures())).flatten()
    assert facts["codes_counts"].tolist() == [(codes == code).sum() for code in range(32)]
    shares = facts["codes_counts"].double() / codes.numel()
    torch.testing.assert_close(facts["perplexity"].double(), torch.special.entr(shares).sum().exp(), atol=1e-4, rtol=0)


def lost_code(revive: int) -> Codebook:
    """A codebook past its first steps whose code 0 is far from every feature."""
    torch.manual_seed(0)
    codebook = Codebook(4, 2, revive=revive)
    codebook.steps.fill_(10 * revive)
    with torch.no_grad():
        codebook.embedding.weight.copy_(torch.tensor([[99.0, 99.0], [1, 0], [0, 1], [-1, -1]]))
    return codebook


def test_an_unused_code_comes_back_to_life_and_says_so():
    codebook, features = lost_code(revive=3), torch.randn(8, 2, 4, 4)
    said = []
    for _ in range(3):
        before = codebook.embedding.weight.clone()
        codebook(features)
        said.append(codebook.after_step())
    assert said == [[], [], ["embedding.weight"]]
    assert torch.equal(codebook.embedding.weight[1:], before[1:])
    assert torch.cdist(codebook.embedding.weight[:1], features.permute(0, 2, 3, 1).reshape(-1, 2)).min() < 0.1
    assert (codebook.nearest(features) == 0).any()


def test_a_code_used_in_any_forward_of_the_period_stays():
    codebook = lost_code(revive=2)
    far = torch.full((1, 2, 1, 1), 99.0)
    codebook(far)
    codebook(torch.randn(8, 2, 4, 4))  # the second micro-batch of the same step
    assert codebook.after_step() == []
    codebook(torch.randn(8, 2, 4, 4))
    assert codebook.after_step() == []
    assert codebook.embedding.weight[0].tolist() == [99.0, 99.0]


def test_revival_is_repeatable_and_goes_on_after_a_restart():
    def run(restart_at: int | None) -> torch.Tensor:
        codebook = lost_code(revive=3)
        for step in range(9):
            if step == restart_at:
                saved = copy.deepcopy(codebook.state_dict())
                codebook = Codebook(4, 2, revive=3)
                codebook.load_state_dict(saved)
            torch.manual_seed(step)
            codebook(torch.randn(2, 2, 1, 1))
            codebook.after_step()
        return codebook.embedding.weight

    assert torch.equal(run(None), run(None))
    assert torch.equal(run(None), run(restart_at=4))


def test_features_that_are_not_finite_never_become_codes():
    codebook = lost_code(revive=1)
    codebook(torch.full((2, 2, 1, 1), float("nan")))
    codebook.after_step()
    assert codebook.embedding.weight.isfinite().all()


def test_only_training_counts_as_use():
    codebook = lost_code(revive=1)
    codebook.eval()(torch.randn(2, 2, 1, 1))
    with torch.no_grad():
        codebook.train()(torch.randn(2, 2, 1, 1))
    assert codebook.after_step() == []
    assert codebook.steps == 10


def test_a_fresh_codebook_starts_on_the_data():
    vqvae = make("vqvae")
    vqvae(pictures())
    assert vqvae.after_step() == ["quantize.embedding.weight"]
    assert vqvae(pictures()).facts["perplexity"] > 16


def test_a_codebook_from_elsewhere_is_not_thrown_away():
    codebook = Codebook(4, 2)
    codebook.load_state_dict({"embedding.weight": torch.randn(4, 2)}, strict=False)
    codebook(torch.zeros(1, 2, 1, 1))
    assert codebook.after_step() == []
