"""What a plugin gives is a tensor of real numbers, on the device of what it was given, with a gradient where it is trained: refused by name otherwise."""

from pathlib import Path

import pytest
from odd_plugins import PERCEPTUAL, SAMPLER

TINY = Path(__file__).parents[1] / "tiny"
DENOISER = """
class Odd(nn.Module):
    Config = Plain
    def __init__(self, config, *, channels, size, vector_dim=0, token_dim=0, map_channels=0):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)
    def forward(self, x, timestep, condition=None):
        return {said}
"""
GAP = "(image - target).abs().mean((1, 2, 3))"
DISCRIMINATOR = """
class Odd(nn.Module):
    Config = Plain
    def __init__(self, config, *, image_channels):
        super().__init__()
        self.score = nn.Conv2d(image_channels, 1, 4, stride=4)
    def forward(self, image):
        return [{said}]
"""
AUTOENCODER = """
class Odd(nn.Module):
    Config = Plain
    rescale, factor, channels = "channel", 2, 3
    def __init__(self, config, *, image_channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(image_channels, 3, 2, stride=2), nn.ConvTranspose2d(3, image_channels, 2, stride=2)
    def encode(self, image): return self.down(image)
    def draw(self, moments, generator=None): return moments
    def decode(self, latent): return self.up(latent)
    def forward(self, image, generator=None): return Reconstruction({said}, {{}}, {{}})
"""
SCHEDULE = "class Odd:\n    Config = Plain\n    def __init__(self, config): pass\n    def marginal(self, t): return {said}\n"
INTEGERS, ELSEWHERE, STILL = (
    "not of floating-point numbers",
    "on meta, not on cpu",
    "no gradient leads from what forward gave to what is trained",
)


def fit_ae_words(out, *more):
    return ["fit-ae", "--config", TINY / "fit-ae.yaml", "--out", out, "loop.steps=2", *more]


def fit_diffusion_words(out, cache, *more):
    return ["fit-diffusion", "--config", TINY / "fit-diffusion.yaml", "--latents", cache, "--out", out, "loop.steps=2", *more]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("self.mix(x).long()", INTEGERS),
        ("torch.empty_like(x, device='meta')", ELSEWHERE),
        ("self.mix(x).detach().numpy()", "forward gave ndarray, not"),
        ("self.mix(x).detach()", STILL),
    ],
)
def test_a_denoiser_gives_real_numbers_where_it_was_given_some_and_can_learn(install, said, vae_cache, tmp_path, answer, complaint):
    install("odd", denoiser={"odd": "Odd"}, source=DENOISER.format(said=answer))
    code, _, err = said(*fit_diffusion_words(tmp_path / "ldm", vae_cache, "denoiser={type: odd}", "conditioner=null"))
    assert code == 4 and "The denoiser 'odd' from odd 1.0 does not keep its promise: " in err and complaint in err and "bug" not in err


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("x.int()", INTEGERS),
        ("torch.empty_like(x, device='meta')", ELSEWHERE),
        ("x.numpy()", "the call gave ndarray, not"),
        ("x.to(torch.complex64)", INTEGERS),
    ],
)
def test_a_sampler_gives_real_numbers_where_it_was_given_some(install, said, sample_words, answer, complaint):
    install("odd", sampler={"odd": "Odd"}, source=SAMPLER.format(said=answer))
    code, _, err = said(*sample_words, "--sampler", "odd")
    assert code == 4 and "The sampler 'odd' from odd 1.0 does not keep its promise: " in err and complaint in err


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ("denoise(x[:, :1], sigmas[0])", ", 1, 8, 8], not of all"),
        ("torch.cat([denoise(x[:1], sigmas[0]), denoise(x[1:], sigmas[0])])", "[1, 3, 8, 8], not of all"),
        ("denoise(x.numpy(), sigmas[0])", "[4, 4], not of all"),
    ],
)
def test_a_sampler_asks_about_all_pictures_together_and_its_check_says_so_too(install, said, sample_words, answer, asked):
    install("odd", sampler={"odd": "Odd"}, source=SAMPLER.format(said=answer.replace("x.numpy()", "torch.zeros(4, 4)")))
    code, _, err = said(*sample_words, "--sampler", "odd")
    assert code == 4 and "The sampler 'odd' from odd 1.0 does not keep its promise: it asks what is clean of [" in err and asked in err
    code, _, err = said("plugins", "check", "sampler", "odd")
    assert code == 4 and "it asks what is clean of [" in err


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(f"{GAP}.long()", INTEGERS), (f"{GAP}.detach()", STILL), ("torch.zeros(len(image), device='meta')", ELSEWHERE)],
)
def test_a_perceptual_gives_real_numbers_that_can_be_learned_from(install, said, tmp_path, answer, complaint):
    install("odd", perceptual={"odd": "Odd"}, source=PERCEPTUAL.format(said=answer))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "perceptual={type: odd}"))
    assert code == 4 and "The perceptual 'odd' from odd 1.0 does not keep its promise: " in err and complaint in err
    assert not (tmp_path / "ae").exists()


def test_a_perceptual_that_only_measures_needs_no_gradient(install, said, tmp_path):
    install("odd", perceptual={"odd": "Odd"}, source=PERCEPTUAL.format(said=f"{GAP}.detach()"))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "perceptual={type: odd}", "losses.perceptual_weight=0"))
    assert code == 0, err


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("self.score(image).long()", INTEGERS),
        ("self.score(image).detach()", STILL),
        ("torch.zeros(len(image), 1, 2, 2, device='meta')", ELSEWHERE),
    ],
)
def test_a_discriminator_gives_real_numbers_and_can_learn(install, said, tmp_path, answer, complaint):
    install("odd", discriminator={"odd": "Odd"}, source=DISCRIMINATOR.format(said=answer))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "discriminator={type: odd}", "perceptual=null"))
    assert code == 4 and "The discriminator 'odd' from odd 1.0 does not keep its promise: " in err and complaint in err
    assert not (tmp_path / "ae").exists()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("image.to(torch.uint8)", INTEGERS),
        ("self.decode(self.encode(image)).detach()", STILL),
        ("torch.empty_like(image, device='meta')", ELSEWHERE),
    ],
)
def test_an_autoencoder_gives_real_numbers_and_can_learn(install, said, tmp_path, answer, complaint):
    install("odd", autoencoder={"odd": "Odd"}, source=AUTOENCODER.format(said=answer))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "autoencoder={type: odd}", "perceptual=null"))
    assert code == 4 and "The autoencoder 'odd' from odd 1.0 does not keep its promise: " in err and complaint in err


@pytest.mark.parametrize(
    ("answer", "complaint"), [("(1 - t).long(), t.long()", INTEGERS), ("(1 - t).numpy(), t.numpy()", "marginal gave ndarray")]
)
def test_a_schedule_gives_real_numbers(install, said, vae_cache, tmp_path, answer, complaint):
    install("odd", schedule={"odd": "Odd"}, source=SCHEDULE.format(said=answer))
    code, _, err = said(*fit_diffusion_words(tmp_path / "ldm", vae_cache, "schedule={type: odd}"))
    assert code == 4 and "The schedule 'odd' from odd 1.0 does not keep its promise: " in err and complaint in err
