"""Guides: what a loss on the picture comes to where the answer is known, and how a bad one is told."""

import math

import pytest
import torch

from ldmctl import api, registry
from ldmctl.config.base import PluginConfig
from ldmctl.config.presets import compose
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.editing import Corrected
from ldmctl.diffusion.guides import Guides
from ldmctl.diffusion.inpainting import Blend, free_cells
from ldmctl.diffusion.spacing import levels as spaced
from ldmctl.errors import ConfigError, MemoryShortage, PluginError

Classifier = registry.load("guide", "classifier")
COVARIANCE = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
COUNT = 20_000


def ideal(x, sigma):
    """The mean of clean data of mean 0 given x."""
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + float(sigma) ** 2 * torch.eye(2))
    return torch.einsum("ij,bjhw->bihw", gain, x)


def levels(steps, low=0.02, high=80.0):
    """Karras et al. 2022, eq. 5."""
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.cat([(high ** (1 / 7) + share * (low ** (1 / 7) - high ** (1 / 7))) ** 7, share.new_zeros(1)])


def guided(loss, sampler="ddim", sigmas=None):
    """(means [2], deviations [2]) of Gaussian data that a loss guides."""
    generator, sigmas = torch.Generator().manual_seed(0), levels(100) if sigmas is None else sigmas
    half = torch.randn(COUNT // 2, 2, 1, 1, generator=generator) * math.sqrt(1 + sigmas[0].item() ** 2)
    x = torch.cat([half, -half])  # their mean is 0
    noise = lambda *step: torch.randn(COUNT, 2, 1, 1, generator=generator)
    made = registry.build("sampler", plugin_config("sampler", {"type": sampler}))(
        Corrected(ideal, [Guides([loss], lambda latent: latent)]), x, sigmas, noise
    )
    return made.mean((0, 2, 3)), made.std((0, 2, 3))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("deviation", [2.0, 0.5, 0.01])
def test_a_quadratic_guide_on_a_gaussian_reaches_the_true_posterior(sampler, deviation):
    """The first number is seen to be 1.5, give or take `deviation`: the second follows it as far as the two go together."""
    means, deviations = guided(lambda image: ((image[:, 0, 0, 0] - 1.5) / deviation).square() / 2, sampler)
    gain = COVARIANCE[:, 0] / (1 + deviation**2)
    left = (COVARIANCE.diagonal() - gain * COVARIANCE[0]).sqrt()
    assert torch.allclose(means, 1.5 * gain, rtol=0.04) and torch.allclose(deviations, left, rtol=0.08, atol=0.01)


@pytest.mark.parametrize("schedule", [plugin.name for plugin in registry.plugins("schedule") if plugin.name != "scaled-linear"])
def test_so_it_does_with_the_defaults_of_the_command(schedule):
    """`scaled-linear` is left out: it begins at a level of 14.6, where a little is known of the picture already, which noise alone is not."""
    asked, _ = compose(Sample)
    _, sigmas = spaced(registry.build("schedule", plugin_config("schedule", {"type": schedule})), asked.steps, asked.spacing)
    means, deviations = guided(lambda image: ((image[:, 0, 0, 0] - 1.5) / 0.5).square() / 2, asked.sampler.type, sigmas)
    gain = COVARIANCE[:, 0] / 1.25
    left = (COVARIANCE.diagonal() - gain * COVARIANCE[0]).sqrt()
    assert torch.allclose(means, 1.5 * gain, rtol=0.03) and torch.allclose(deviations, left, rtol=0.08)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_a_guide_for_which_there_is_no_memory_is_named_with_ways_out(error):
    class Network(torch.nn.Module):
        def forward(self, x):
            raise error

    guide = Classifier.__new__(Classifier)  # without weights
    torch.nn.Module.__init__(guide)
    guide.config = Classifier.Config(type="classifier", file="c.pth", label=0, normalise=False)
    guide.network = Network()
    with pytest.raises(
        MemoryShortage, match=r"at the guide classifier, whose gradient .*memory.* 1. batch=4, or 1; 2. a lighter guide"
    ) as told:
        Corrected(ideal, [Guides([guide], lambda latent: latent)])(torch.randn(4, 2, 1, 1), 1.0)
    assert told.value.exit_code == 7 and "guide.side" in str(told.value)


def test_several_guides_are_one_loss():
    one, other = (lambda image: ((image[:, 0, 0, 0] - 1.5) / 0.5).square() / 2), (lambda image: 0 * image[:, 0, 0, 0])
    correct = [Guides(losses, lambda latent: latent) for losses in ([one], [one, other])]
    x = torch.randn(4, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*(Corrected(ideal, [each])(x, 1.0) for each in correct))


def test_no_scale_takes_the_loss_of_the_clean_estimate_past_0():
    x = torch.randn(64, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    before = ideal(x, 1.0)[:, 0] - 1.5
    for scale in (1e1, 1e3, 1e6, 1e15, 1e24, 1e30):
        after = Corrected(ideal, [Guides([lambda image, s=scale: s * (image[:, 0, 0, 0] - 1.5).square()], lambda z: z)])(x, 1.0)[:, 0] - 1.5
        assert (after * before > -1e-6).all() and (after.abs() < before.abs()).all()


# -- in whole runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("guides") / "ldm", vae_cache, "loop.lr=1e-2", "loop.ema=0", "loop.steps=8")


@pytest.fixture(scope="module")
def model(ldm):
    return api.load(ldm, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def sampled(model):
    """sampled(guides=[...]) -> uint8 [N,C,H,W]."""
    return lambda **keys: model.sample(**{"count": 2, "steps": 4, "batch": 2, "label": "red circle", **keys}).images


def test_a_colour_moves_the_mean_of_its_region_and_leaves_other_seeds_as_they_are_alone(sampled):
    plain, blue = sampled(steps=20), sampled(steps=20, guides=[{"type": "colour", "colour": "blue", "scale": 30}])
    distance = lambda images: (images.float().mean((2, 3)) - torch.tensor([0.0, 0.0, 255.0])).norm(dim=1)
    assert (distance(blue) < distance(plain) - 2).all()
    assert torch.equal(sampled(steps=20, guides=[{"type": "colour", "colour": "blue", "scale": 30}], count=1, seed=1)[0], blue[1])


def test_a_function_and_a_plugin_of_the_same_loss_are_the_same_guide(sampled):
    keys = {"type": "colour", "colour": "lime", "scale": 5}
    guide = registry.load("guide", "colour")(registry.load("guide", "colour").Config(**keys), image_channels=3)
    assert torch.equal(sampled(guides=[keys]), sampled(guides=[guide.loss])) and torch.equal(
        sampled(guides=[keys]), sampled(guides=[guide])
    )
    assert not torch.equal(sampled(guides=[keys]), sampled())


def test_guides_work_beside_a_mask_and_with_guidance_and_leave_known_pixels_alone(sampled):
    start, free = torch.full((3, 16, 16), 200, dtype=torch.uint8), torch.zeros(16, 16, dtype=torch.bool)
    free[4:8, 4:8] = True
    keys = {"start": start, "mask": free, "painting": {"feather": 0}, "guidance": 2.0}
    with_guide, without = sampled(**keys, guides=[{"type": "colour", "colour": "blue", "scale": 100}]), sampled(**keys)
    assert not torch.equal(with_guide, without)
    assert torch.equal(with_guide[:, :, ~free], start[:, ~free].expand(2, -1, -1))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda image: image.mean((1, 2, 3)) * float("nan"), "loss is not finite at sigma / alpha"),
        (lambda image: image.square().mean(), r"loss gave \[\] for pictures \[2, 3, 16, 16\], not \[2\]"),
        (lambda image: 1.0, "loss gave float for pictures"),
        (lambda image: image.detach().mean((1, 2, 3)), "no gradient leads from its loss to the picture"),
        (lambda image: (image.flatten(1)[:, 0] * 0).sqrt() + image.mean((1, 2, 3)), "the gradient of loss is not finite"),
    ],
)
def test_a_guide_that_is_none_is_named(sampled, loss, said):
    class Odd:
        Config = PluginConfig

        def __init__(self, config, **context):
            pass

        def loss(self, image):
            return loss(image)

    registry.register("guide", "odd", Odd)
    with pytest.raises(PluginError, match=f"The guide 'odd' from .* does not keep its promise: {said}") as caught:
        sampled(guides=["odd"])
    assert caught.value.exit_code == 4


def test_guides_reach_through_a_decoder_that_rounds(tmp_path, encode, fit_diffusion, vqvae_run):
    run = fit_diffusion(tmp_path / "ldm", encode(tmp_path / "cache", vqvae_run), "loop.steps=2")
    model = api.load(run, device="cpu", precision="fp32")
    seen = []
    for guides in (None, [{"type": "colour", "colour": "red", "scale": 1000}]):
        model.sample(1, steps=2, batch=1, guides=guides, callback=lambda look: seen.append(look.clean))
    assert not torch.allclose(seen[0], seen[2], atol=1e-2)


def test_a_decoder_without_gradients_is_told_and_no_guide_is_blamed():
    with pytest.raises(ConfigError, match="decoder lets no gradient through"):
        Corrected(ideal, [Guides([lambda image: image.mean((1, 2, 3))], lambda latent: latent.detach().round())])(
            torch.randn(2, 2, 1, 1), 1.0
        )


# -- keys ------------------------------------------------------------------------------------------------


def guides_of(*words):
    return [each.model_dump() for each in compose(Sample, overrides=list(words))[0].guide]


def test_one_guide_is_named_as_any_plugin_is_and_several_are_a_list():
    red = {"type": "colour", "colour": "red", "region": (0.0, 0.0, 1.0, 1.0), "scale": 3.0}
    assert guides_of("guide=colour", "guide.colour=red", "guide.scale=3") == [red]
    assert guides_of("guide=[{type: colour, colour: red, scale: 3}, {type: colour, colour: blue}]") == [
        red,
        {**red, "colour": "blue", "scale": 1.0},
    ]
    assert guides_of() == [] == guides_of("guide=[]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["guide=colour"], r"guide\.0\.colour: is missing"),
        (["guide=colour", "guide.colour=red", "guide.region=[0.5,0,0.2,1]"], "shares from 0 to 1"),
        (["guide=colour", "guide.color=red"], r"guide\.0\.color: unknown key\. Did you mean 'colour'\?"),
        (["guide.colour=red"], r"guide\.0\.type is missing: name a guide, one of .*colour"),
        (["guide=color"], "No guide is called 'color'. Did you mean 'colour'"),
    ],
)
def test_keys_of_a_guide_are_checked_in_words(words, said):
    with pytest.raises((ConfigError, PluginError), match=said):
        compose(Sample, overrides=words)


def test_settings_hold_the_guides_and_a_hash_of_what_they_read(model, tmp_path):
    from PIL import Image

    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    found = model.settings(compose(Sample, overrides=["guide=colour", "guide.colour=red"])[0])
    assert found["guide"][0]["colour"] == "red" and "guided_by" not in found and "guide" not in model.settings(compose(Sample)[0])


def test_what_a_mask_holds_at_a_level_is_held_from_guides_too():
    """Cells beside the mask are known but for detail, so a guide moves them below the level of detail alone."""
    free = torch.zeros(10, 10, dtype=torch.bool)
    free[4:6, 4:6] = True
    cells = free_cells(free, 2)
    known = torch.zeros(1, 1, 5, 5)
    shrink = lambda x, sigma: x / (1 + float(sigma) ** 2)
    corrected = Corrected(shrink, [Guides([lambda image: (image - 1).square().sum((1, 2, 3))], lambda z: z, cells.at), Blend(known, cells)])
    ring = (cells.grown - cells.free).bool()
    assert int(ring.sum()) == 8
    early, late = (corrected(torch.zeros(1, 1, 5, 5), sigma) for sigma in (1.0, 0.05))
    assert torch.equal(early[ring], known[ring]) and bool((early[cells.free.bool()] > 0.1).all())
    assert bool((late[ring] > 0).all()) and torch.equal(late[cells.grown == 0], known[cells.grown == 0])
