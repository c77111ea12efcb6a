"""Promises of every autoencoder, and of the VAE and the VQ-VAE in particular."""

import copy
import re

import pytest
import torch
from torch import nn

from ldmctl import registry
from ldmctl.blocks import Attention
from ldmctl.blocks.resnet import ChannelNorm, Downsample, Upsample
from ldmctl.protocols import Reconstruction
from ldmctl.testing import check_autoencoder

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
            ours.load_state_dict(theirs.state_dict())
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


WAYS = [
    {},
    {"learning": "ema"},
    {"kmeans": 2},
    {"unit_length": True},
    {"gradient": "rotation"},
    {"learning": "ema", "kmeans": 1, "unit_length": True, "gradient": "rotation"},
]


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("keys", [{"norm": "layer"}, {"shortcuts": True}], ids=["layer norm", "shortcuts"])
def test_other_norms_and_paths_without_any_keep_the_promises_of_an_autoencoder(name, keys):
    check_autoencoder(registry.load("autoencoder", name), **SMALL[name], **keys)


@torch.no_grad()
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(("norm", "shortcuts"), [("layer", False), ("layer", True), ("group", False)])
def test_with_layer_norm_what_is_far_away_changes_nothing(name, norm, shortcuts):
    autoencoder = make(name, norm=norm, attention=False, shortcuts=shortcuts).eval()
    image = pictures(size=256)
    other = image.clone()
    other[..., 192:] = -other[..., 192:] / 2
    moments, others = autoencoder.encode(image), autoencoder.encode(other)
    latent, elsewhere = autoencoder.draw(moments, torch.Generator().manual_seed(3)), torch.randn(2, autoencoder.channels, 64, 64)
    elsewhere[..., :48] = latent[..., :48]
    near = ((moments - others)[..., :24].abs().max(), (autoencoder.decode(latent) - autoencoder.decode(elsewhere))[..., :96].abs().max())
    assert [float(gap) < 1e-5 for gap in near] == [norm == "layer"] * 2, near
    assert not torch.equal(moments[..., 52:], others[..., 52:])


@torch.no_grad()
@pytest.mark.parametrize("shortcuts", [True, False])
def test_shortcuts_lead_through_both_halves_past_every_norm(shortcuts):
    vae = make("vae", shortcuts=shortcuts).double()
    for name, part in vae.named_modules():  # all that a norm or a resampling feeds says nothing
        if re.search(r"conv2$|conv_out$|samplers\.\d\.conv$|to_out\.0$", name):
            part.weight.zero_()
    for half, x in ((vae.encoder, pictures().double()), (vae.decoder, torch.randn(2, vae.channels, 7, 7).double())):
        nothing, once, thrice = (half(scale * x) for scale in (0, 1, 3))
        assert torch.equal(once, nothing) is not shortcuts
        torch.testing.assert_close(thrice - nothing, 3 * (once - nothing))


@torch.no_grad()
@pytest.mark.parametrize(("centred", "size"), [(False, (6, 8)), (False, (7, 9)), (True, (6, 8)), (True, (7, 9))])
def test_what_goes_around_a_halving_is_the_mean_of_four_pixels_and_around_a_doubling_the_pixel(centred, size):
    x = torch.randn(2, 4, *size)
    down, up = Downsample(4, centred=centred, shortcut=True), Upsample(4, shortcut=True)
    halved = down(x)
    assert halved.shape[-2:] == tuple((side + centred) // 2 for side in size)
    torch.testing.assert_close((halved - with_(down, shortcut=False)(x))[..., 0, 0], x[..., :2, :2].mean((2, 3)))
    doubled = up(x, size=(2 * size[0] - 1, 2 * size[1]))
    around = doubled - with_(up, shortcut=False)(x, size=(2 * size[0] - 1, 2 * size[1]))
    torch.testing.assert_close(around, x.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : doubled.shape[2], :])


def with_(module, **attributes):
    """The same parameters with other attributes."""
    other = copy.copy(module)
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


@torch.no_grad()
def test_layer_norm_takes_the_mean_and_variance_of_the_channels_of_a_pixel():
    x = torch.randn(2, 8, 5, 4) * 3 + 1
    norm = ChannelNorm(8, 0.0)
    norm.weight.copy_(torch.arange(1.0, 9.0))
    centred = x - x.mean(1, keepdim=True)
    expected = centred / centred.square().mean(1, keepdim=True).sqrt() * torch.arange(1.0, 9.0)[:, None, None]
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("keys", WAYS, ids=lambda keys: "-".join(keys) or "default")
def test_every_way_to_learn_codes_keeps_the_promises_of_an_autoencoder(keys):
    check_autoencoder(registry.load("autoencoder", "vqvae"), **{**SMALL["vqvae"], **keys})


@pytest.mark.parametrize("keys", WAYS, ids=lambda keys: "-".join(keys) or "default")
def test_codes_decode_to_the_same_picture_as_their_features(keys):
    vqvae = make("vqvae", **keys).eval()
    features = vqvae.encode(pictures())
    codes = vqvae.codes(features)
    assert torch.equal(vqvae.codes(vqvae.lookup(codes)), codes)
    assert torch.equal(vqvae.decode(vqvae.lookup(codes)), vqvae.decode(features))
    assert torch.equal(vqvae.decode(features), vqvae(pictures()).image)


def test_only_forward_counts_uses_and_decode_does_not():
    vqvae = make("vqvae")
    latent = vqvae.encode(pictures())
    vqvae(pictures())
    vqvae.decode(latent.roll(1, 3)).mean().backward()  # as a penalty on turned latents does
    vqvae.codes(latent)
    vqvae.quantize.revive = 0
    vqvae.after_step()
    assert vqvae.quantize.uses.sum() == latent[:, 0].numel()


def test_codes_that_are_moving_averages_have_no_penalty_and_no_gradient():
    vqvae = make("vqvae", learning="ema")
    reconstruction = vqvae(pictures())
    assert set(reconstruction.penalties) == {"commitment"} and reconstruction.penalties["commitment"] > 0
    assert "quantize.embedding.weight" in vqvae.state_dict() and not vqvae.quantize.embedding.weight.requires_grad


def test_a_vqvae_with_default_keys_keeps_no_more_than_its_codes_and_two_counters():
    names = [name for name in make("vqvae").state_dict() if name.startswith("quantize.")]
    assert names == ["quantize.uses", "quantize.steps", "quantize.embedding.weight"]


def test_a_vqvae_says_its_codes_their_bits_and_what_decodes():
    vqvae = make("vqvae")
    bits = vqvae.bits(vqvae.encode(pictures()))
    assert vqvae.code_count == 32 and bits.tolist() == [5 * 7 * 7] * 2
    assert vqvae.last_layer is vqvae.decoder.conv_out.weight
    latent = vqvae.encode(pictures()).detach()
    vqvae.decode(latent).square().mean().backward()
    learned = {name.split(".")[0] for name, value in vqvae.named_parameters() if value.grad is not None}
    assert learned == set(vqvae.decoding)


def test_directions_of_one_channel_are_refused():
    with pytest.raises(ValueError, match="unit_length leaves one channel two values"):
        make("vqvae", channels=1, unit_length=True)


def test_facts_count_the_codes_of_the_batch():
    vqvae = make("vqvae")
    facts = vqvae(pictures()).facts
    codes = vqvae.codes(vqvae.encode(pictures())).flatten()
    assert facts["codes_counts"].tolist() == [(codes == code).sum() for code in range(32)]
    assert facts["codes_counts"].dtype == torch.int64


def test_facts_say_how_far_latents_spread_and_what_rounding_loses():
    vqvae = make("vqvae")
    facts, features = vqvae(pictures()).facts, vqvae.encode(pictures()).detach()
    torch.testing.assert_close(facts["latent_deviation"], features.std(correction=0))
    assert facts["latent_max"] == features.abs().max()
    error = (features - vqvae.lookup(vqvae.codes(features))).square().mean() / features.var((0, 2, 3), correction=0).mean()
    torch.testing.assert_close(facts["quantization_error"], error.detach())


def test_a_fresh_codebook_starts_on_the_data():
    vqvae = make("vqvae")
    vqvae(pictures())
    assert list(vqvae.after_step()) == ["quantize.embedding.weight"]
    assert (vqvae(pictures()).facts["codes_counts"] > 0).sum() > 16


@pytest.mark.parametrize("name", TRAINED)
def test_more_halvings_than_a_picture_has_are_refused_by_their_key(name, tmp_path, capsys):
    from ldmctl.cli.app import run

    widths = ",".join(["8"] * 100)
    words = ["--data", "shapes", f"autoencoder={{type: {name}, widths: [{widths}]}}", "--out", str(tmp_path / "x"), "--dry-run"]
    assert run(["fit-ae", *words]) == 2
    said = capsys.readouterr().err
    assert "autoencoder.widths: list should have at most 8 items" in said and "Traceback" not in said
