"""Every perceptual distance keeps its protocol; LPIPS is the published one, and never loses a gradient."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from ldmctl import registry
from ldmctl.errors import DataError, MissingError, PluginError

FILE = "vgg16-397923af.pth"
LAYERS = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256)]
LAYERS += [(17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512)]  # torchvision's numbers


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> Path:
    """Random weights under the names of torchvision's file, loud enough to reach the last stage."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for number, before, after in LAYERS:
        state[f"features.{number}.weight"] = torch.randn(after, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
        state[f"features.{number}.bias"] = torch.randn(after, generator=generator) * 0.1
    state["classifier.0.bias"] = torch.zeros(8)  # the published file holds a classifier too
    path = tmp_path_factory.mktemp("weights") / FILE
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def lpips(tower):
    """One instance per number of image channels."""
    plugin = registry.load("perceptual", "lpips")
    config = plugin.Config(type="lpips", weights=str(tower))
    return {channels: plugin(config, image_channels=channels) for channels in (1, 3, 4)}


def pictures(channels: int = 3, size: int = 32, count: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, target = torch.rand(2, count, channels, size, size, generator=generator) * 2 - 1
    return image, target


def test_a_perceptual_is_registered():
    assert "lpips" in [plugin.name for plugin in registry.plugins("perceptual")]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_distance_per_picture_zero_when_equal_and_the_same_both_ways(lpips, channels):
    image, target = pictures(channels)
    distance = lpips[channels](image, target)
    assert distance.shape == (2,) and distance.dtype == torch.float32 and (distance > 0).all()
    assert torch.equal(lpips[channels](image, image), torch.zeros(2))
    torch.testing.assert_close(lpips[channels](target, image), distance)
    torch.testing.assert_close(lpips[channels](image[:1], target[:1]), distance[:1])  # no picture changes another's


def test_lpips_equals_torchmetrics_on_equal_weights(lpips, tower, monkeypatch):
    theirs_module = pytest.importorskip("torchmetrics.functional.image.lpips", exc_type=ImportError)
    vgg = pytest.importorskip("torchvision.models.vgg", exc_type=ImportError)
    features = vgg.make_layers(vgg.cfgs["D"])
    state = torch.load(tower, weights_only=True)
    features.load_state_dict({name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")})
    monkeypatch.setattr(theirs_module, "_get_tv_model_features", lambda net, pretrained=False: features)  # its own would download
    theirs = theirs_module._NoTrainLpips(net="vgg")
    for size, seed in [(16, 0), (28, 1), (64, 2)]:
        image, target = pictures(size=size, seed=seed)
        with torch.no_grad():
            expected = theirs(image, target).flatten()
            assert expected.min() > 1e-3
            torch.testing.assert_close(lpips[3](image, target), expected, rtol=1e-5, atol=1e-5)


def test_grey_is_repeated(lpips):
    image, target = pictures(1)
    torch.testing.assert_close(lpips[1](image, target), lpips[3](image.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1)))


def test_colours_under_transparent_pixels_do_not_count_and_alpha_does(lpips):
    image, target = pictures(4)
    opaque = torch.ones(2, 1, 32, 32)
    torch.testing.assert_close(
        lpips[4](torch.cat([image[:, :3], opaque], 1), torch.cat([target[:, :3], opaque], 1)), lpips[3](image[:, :3], target[:, :3])
    )
    assert torch.equal(lpips[4](torch.cat([image[:, :3], -opaque], 1), torch.cat([target[:, :3], -opaque], 1)), torch.zeros(2))
    assert (lpips[4](torch.cat([image[:, :3], opaque], 1), torch.cat([image[:, :3], -opaque], 1)) > 0).all()


def test_the_gradient_reaches_the_image_and_never_the_target_or_the_tower(lpips):
    image, target = (x.requires_grad_() for x in pictures())
    lpips[3](image, target).sum().backward()
    assert image.grad.abs().sum() > 0 and image.grad.isfinite().all()
    assert target.grad is None
    assert all(not p.requires_grad and p.grad is None for p in lpips[3].parameters())


def test_the_gradient_is_the_slope(lpips):
    image, target = pictures(size=16, count=1)
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    image.requires_grad_()
    lpips[3](image, target).sum().backward()
    with torch.no_grad():
        slope = (lpips[3](image + 1e-3 * direction, target) - lpips[3](image - 1e-3 * direction, target)) / 2e-3
    torch.testing.assert_close((image.grad * direction).sum(), slope.sum(), rtol=5e-2, atol=1e-3)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_identical_and_plain_pictures_have_a_finite_value_and_gradient(lpips, level):
    """A square root of zero has an infinite slope: this made whole trainings NaN elsewhere."""
    plain = torch.full((1, 3, 32, 32), level)
    for target in (plain, pictures(count=1)[0]):
        image = plain.clone().requires_grad_()
        distance = lpips[3](image, target)
        distance.sum().backward()
        assert distance.isfinite().all() and image.grad.isfinite().all()


def test_features_of_zero_have_a_finite_gradient(lpips):
    module = lpips[3]
    bias = module.features[0].bias.clone()
    try:
        module.features[0].bias.fill_(-1e6)  # a first stage that is silent everywhere
        image = pictures()[0].requires_grad_()
        distance = module(image, pictures()[1])
        distance.sum().backward()
        assert distance.isfinite().all() and image.grad.isfinite().all()
    finally:
        module.features[0].bias.copy_(bias)


def test_it_stays_in_evaluation_whoever_holds_it_trains(lpips):
    holder = nn.Module()
    holder.loss = lpips[3]
    holder.train()
    assert holder.training and not any(module.training for module in lpips[3].modules())


def test_under_autocast_the_reduction_is_float32(lpips):
    image, target = pictures(size=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distance = lpips[3](image.bfloat16(), target.bfloat16())
        same = lpips[3](image, image)
    assert distance.dtype == torch.float32 and torch.equal(same, torch.zeros(2))
    torch.testing.assert_close(distance, lpips[3](image, target), rtol=5e-2, atol=0)


def test_pictures_too_small_for_four_poolings_are_a_sentence(lpips):
    with pytest.raises(DataError, match="at least 16 x 16 pixels, these have 15 x 32"):
        lpips[3](*(x[..., :15] for x in pictures()))
    assert lpips[3](*pictures(size=16)).isfinite().all()


def test_other_numbers_of_channels_are_refused_before_any_file_is_read():
    plugin = registry.load("perceptual", "lpips")
    with pytest.raises(PluginError, match="1, 3 or 4 channels, not of 2"):
        plugin(plugin.Config(type="lpips"), image_channels=2)


def test_building_it_draws_no_random_numbers(tower):
    plugin = registry.load("perceptual", "lpips")
    torch.manual_seed(0)
    plugin(plugin.Config(type="lpips", weights=str(tower)), image_channels=3)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))


# -- files -----------------------------------------------------------------------


def build(**keys):
    plugin = registry.load("perceptual", "lpips")
    return plugin(plugin.Config(type="lpips", **keys), image_channels=3)


def test_missing_weights_say_the_file_the_places_and_the_ways_out(monkeypatch, tmp_path):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(MissingError) as caught:
        build()
    said = str(caught.value)
    assert caught.value.exit_code == 4
    for part in (
        FILE,
        str(tmp_path / "own"),
        str(tmp_path / "torch"),
        "https://download.pytorch.org",
        "LDMCTL_WEIGHTS_DIR",
        "LDMCTL_OFFLINE",
    ):
        assert part in said


def test_weights_are_found_in_the_weights_folder(monkeypatch, tower):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(tower.parent))
    assert build()(*pictures(size=16)).isfinite().all()


def test_a_named_file_that_is_not_there_is_never_replaced_by_another(monkeypatch, tower, tmp_path):
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(tower.parent))
    with pytest.raises(MissingError, match=r"nowhere\.pth"):
        build(weights=str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_a_sentence(tmp_path, share, zipped):
    whole, path = tmp_path / "whole.pth", tmp_path / FILE
    small = {f"features.{number}.bias": torch.zeros(after) for number, _, after in LAYERS}
    torch.save(small, whole, _use_new_zipfile_serialization=zipped)  # the published file has the older form
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MissingError, match=r"does not hold torchvision's weights of VGG16 .*remove it to have it fetched again"):
        build(weights=str(path))


@pytest.mark.parametrize("value", [{"features.0.weight": torch.zeros(1)}, [1, 2], {}, "text"])
def test_another_file_is_a_sentence(tmp_path, value):
    path = tmp_path / FILE
    torch.save(value, path)
    with pytest.raises(MissingError, match="does not hold torchvision's weights of VGG16"):
        build(weights=str(path))


def test_weights_of_other_shapes_are_a_sentence(tmp_path, tower):
    state = torch.load(tower, weights_only=True)
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    path = tmp_path / FILE
    torch.save(state, path)
    with pytest.raises(MissingError, match="does not hold torchvision's weights of VGG16"):
        build(weights=str(path))


class Trap:
    """Would run code while it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("trapped"),))


def test_no_code_runs_while_weights_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": Trap()}, tmp_path / FILE)
    with pytest.raises(MissingError, match="does not hold"):
        build(weights=str(tmp_path / FILE))
    assert not (tmp_path / "trapped").exists()


def test_heads_may_be_named_and_wrong_ones_are_a_sentence(tmp_path, tower, lpips):
    published = Path(next(iter(find_spec("torchmetrics").submodule_search_locations))) / "functional/image/lpips_models/vgg.pth"
    named = build(weights=str(tower), heads=str(published))
    image, target = pictures(size=16)
    assert torch.equal(named(image, target), lpips[3](image, target))
    torch.save({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / "heads.pth")
    with pytest.raises(MissingError, match="does not hold the heads of LPIPS"):
        build(weights=str(tower), heads=str(tmp_path / "heads.pth"))
    with pytest.raises(MissingError, match="does not hold the heads of LPIPS"):
        build(weights=str(tower), heads=str(tmp_path / "none.pth"))


def test_neither_torchvision_nor_torchmetrics_is_imported(tower):
    code = f"""
import sys
from ldmctl import registry
plugin = registry.load("perceptual", "lpips")
plugin(plugin.Config(type="lpips", weights={str(tower)!r}), image_channels=3)
print(sorted({{"torchvision", "torchmetrics"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
