"""Every built-in guide keeps its promises and is 0, or least, where it should be."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError

from ldmctl import registry
from ldmctl.diffusion.guides import context_of
from ldmctl.errors import ConfigError, DataError, MissingError
from ldmctl.storage import weights
from ldmctl.testing import check_guide


@pytest.fixture
def keys(towers, tmp_path):
    """Keys with which each guide can be made here."""
    Image.effect_noise((64, 48), 90).convert("RGB").save(tmp_path / "like.png")
    return {
        "colour": {"colour": "orange", "region": (0.25, 0.0, 1.0, 0.5)},
        "perceptual": {
            "image": str(tmp_path / "like.png"),
            "by": {"type": "features", "network": "squeezenet1_1", "weights": towers["features"]},
        },
        "classifier": {"file": towers["features"], "network": "squeezenet1_1", "label": 7},
    }


def made(name, channels=3, **keys):
    plugin = registry.load("guide", name)
    return plugin(plugin.Config(type=name, **keys), **context_of(channels))


@pytest.mark.parametrize("name", [plugin.name for plugin in registry.plugins("guide") if plugin.built_in])
def test_every_guide_keeps_its_promises(name, keys):
    check_guide(registry.load("guide", name), **keys[name])


def test_a_colour_is_a_mean_of_its_region_in_units_of_a_tenth():
    guide = made("colour", colour="#ff0000", region=(0.5, 0.0, 1.0, 1.0), scale=2.0)
    image = torch.zeros(2, 3, 8, 8)
    image[:, :, :, 4:] = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    image[1, 1, :, 4:] = -0.9
    assert torch.allclose(guide.loss(image), torch.tensor([0.0, 2.0 * 0.5]), atol=1e-4), "off by one tenth: 1/2 at scale 1"
    grey = made("colour", channels=1, colour="white")
    assert grey.loss(torch.ones(1, 1, 4, 4)).item() < 1e-8


@pytest.mark.parametrize("region", [(0.0, 0.98, 1.0, 1.0), (0.98, 0.0, 1.0, 1.0), (0.0, 0.0, 0.01, 0.01)])
def test_a_thin_region_is_a_line_of_pixels_at_least(region):
    image = torch.full((1, 3, 16, 16), -1.0)
    for rows, columns in [((-1), slice(None)), (slice(None), -1), (0, 0)]:
        image[:, :, rows, columns] = 1.0
    assert made("colour", colour="white", region=region).loss(image).item() < 1e-8


def test_a_perceptual_guide_is_0_at_its_picture_whatever_the_shape(keys):
    guide = made("perceptual", **keys["perceptual"])
    half = F.interpolate(guide.target, (24, 32), mode="bicubic", antialias=True).clamp(-1, 1)
    for like in (guide.target, half, half[..., 4:-4]):
        assert guide.loss(like).item() < 1e-4 < guide.loss(-like).item()
    assert len(guide.stamp) == 64


def test_a_perceptual_guide_is_known_by_its_picture_and_by_the_weights_of_its_distance(keys, tmp_path):
    stamps, tower = {made("perceptual", **keys["perceptual"]).stamp}, torch.load(keys["perceptual"]["by"]["weights"])
    assert {made("perceptual", **keys["perceptual"]).stamp} == stamps
    torch.save({name: value * 1.01 for name, value in tower.items()}, tmp_path / "other.pth")
    stamps.add(
        made("perceptual", **keys["perceptual"] | {"by": {**keys["perceptual"]["by"], "weights": str(tmp_path / "other.pth")}}).stamp
    )
    Image.effect_noise((64, 48), 90).convert("RGB").save(tmp_path / "like.png")
    stamps.add(made("perceptual", **keys["perceptual"]).stamp)
    assert len(stamps) == 3


@pytest.mark.parametrize("name", ["squeezenet1_1", "vit_b_32"])
def test_pictures_that_the_network_of_a_classifier_does_not_take_are_a_sentence_that_names_a_way(name, keys, tmp_path):
    file = keys["classifier"]["file"]
    if name == "vit_b_32":
        state = pytest.importorskip("torchvision.models").get_model(name, weights=None, num_classes=10).state_dict()
        torch.save(state, file := tmp_path / "vit.pth")
    image = torch.zeros(1, 3, 8, 12)
    with pytest.raises(ConfigError, match=rf"{name} of the guide classifier cannot look at pictures of 12x8 pixels: .* Set guide\.side"):
        made("classifier", file=str(file), network=name, label=7).loss(image)
    assert made("classifier", file=str(file), network=name, label=7, side=224).loss(image).shape == (1,)


def test_a_classifier_says_minus_the_logarithm_of_the_classs_probability(keys):
    guide = made("classifier", **keys["classifier"], normalise=False)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        probability = guide.network(image).softmax(1)[:, 7]
    assert torch.allclose(torch.exp(-guide.loss(image)), probability, rtol=1e-4)
    assert guide.loss(image[:, :1]).shape == (2,), "grey is repeated"


@pytest.mark.parametrize("network", ["resnet18", "squeezenet1_1", "regnet_x_400mf"])
def test_the_classes_of_a_classifier_are_counted_whatever_the_order_of_its_file(network, tmp_path):
    models = pytest.importorskip("torchvision.models")
    state = models.get_model(network, weights=None, num_classes=5).state_dict()
    weights.save(tmp_path / "five.safetensors", dict(reversed(state.items())), {})
    keys = {"network": network, "file": str(tmp_path / "five.safetensors")}
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    assert made("classifier", **keys, label=4).loss(image).shape == (2,)
    with pytest.raises(ConfigError, match=r"guide\.label=5 is beyond the 5 classes"):
        made("classifier", **keys, label=5)


def test_a_perceptual_guide_takes_keys_without_a_type_for_those_of_the_default(keys, towers):
    image = keys["perceptual"]["image"]
    config = registry.load("guide", "perceptual").Config(type="perceptual", image=image, by={"weights": towers["lpips"]})
    assert config.by == {"type": "lpips", "weights": towers["lpips"]}
    with pytest.raises(ConfigError, match="perceptual 'lpips' cannot be made:\n  network: unknown key"):
        made("perceptual", image=image, by={"network": "squeezenet1_1"})
    for by in ({}, {"type": None}):
        with pytest.raises(ConfigError, match="has no type: name one of features, lpips"):
            context_of(3)["perceptual"](by)


def test_what_a_guide_cannot_read_is_named(keys, tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(MissingError, match=r"nowhere\.pth"):
        made("classifier", file=str(tmp_path / "nowhere.pth"), label=0)
    with pytest.raises(DataError, match=r"text\.pth cannot be read as weights"):
        made("classifier", file=str(tmp_path / "text.pth"), label=0)
    with pytest.raises(DataError, match="holds no weights of resnet18"):
        made("classifier", file=keys["classifier"]["file"], label=0)
    with pytest.raises(ConfigError, match="beyond the 1000 classes"):
        made("classifier", **{**keys["classifier"], "label": 1000})
    with pytest.raises(DataError, match=r"guide\.image: "):
        made("perceptual", **{**keys["perceptual"], "image": str(tmp_path / "text.pth")})
    with pytest.raises(ValidationError, match="not a colour; write a name such as red"):
        made("colour", colour="purpel")
