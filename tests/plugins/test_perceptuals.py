"""Every perceptual distance keeps its protocol; LPIPS is the published one and never loses a gradient; `features` is not LPIPS."""

import copy
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from ldmctl import registry
from ldmctl.blocks import FrozenConvolution, backbone
from ldmctl.errors import ConfigError, DataError, MissingError, PluginError
from ldmctl.pictures.images import load, resize, to_float, to_tensor

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


def test_perceptuals_are_registered_and_say_what_reports_call_them(lpips, features):
    assert {"features", "lpips"} <= {plugin.name for plugin in registry.plugins("perceptual")}
    assert lpips[3].title == "lpips" and features[3].title == "features-squeezenet1_0"


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


def test_lpips_equals_the_lpips_package_in_value_and_gradient(lpips):
    package = pytest.importorskip("lpips", exc_type=ImportError)
    theirs = package.LPIPS(net="vgg", pnet_rand=True, verbose=False).requires_grad_(False)
    own = lpips[3].features.state_dict()
    theirs.net.load_state_dict({name: own[name.split(".", 1)[1]] for name in theirs.net.state_dict()})
    for size, seed in [(16, 0), (37, 1)]:
        image, target = pictures(size=size, seed=seed)
        slopes = []
        for module in (lpips[3], theirs):
            leaf = image.clone().requires_grad_()
            distance = module(leaf, target).flatten()
            (distance * torch.tensor([1.0, -3.0])).sum().backward()
            slopes.append((distance.detach(), leaf.grad))
        torch.testing.assert_close(slopes[0][0], slopes[1][0], rtol=1e-5, atol=1e-6)
        # a feature that rounding moves across 0 switches its gradient on or off: compared as a whole
        assert (slopes[0][1] - slopes[1][1]).norm() < 1e-3 * slopes[1][1].norm()


def test_a_batch_that_is_measured_in_parts_is_measured_alike(lpips, monkeypatch):
    import ldmctl_plugins.perceptuals.lpips as module

    image, target = pictures(count=3)
    whole = image.clone().requires_grad_()
    expected = lpips[3](whole, target)
    expected.sum().backward()
    monkeypatch.setitem(module.AT_ONCE, "cpu", 1)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 1000)
    parts = image.clone().requires_grad_()
    distance = lpips[3](parts, target)
    distance.sum().backward()
    torch.testing.assert_close(distance, expected)
    torch.testing.assert_close(parts.grad, whole.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_convolution_and_its_gradient_are_those_of_double_precision_packed_or_not(dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(8, 5, 3, 3, generator=generator), torch.randn(8, generator=generator)
    x = torch.randn(2, 5, 7, 6, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = nn.functional.conv2d(x, weight.to(dtype), bias.to(dtype), padding=1).relu()
    slope = torch.randn(expected.shape, generator=generator).to(dtype)
    heard = (slope * (expected > 0)).double()  # torch's own gradient in bf16 is four times less exact on processors without bf16
    back = nn.functional.conv_transpose2d(heard, weight.to(dtype).double(), padding=1).to(dtype)
    for packs in (True, False):
        if not packs:
            monkeypatch.setattr(backbone, "_packs", lambda weight: False)
        layer = FrozenConvolution(weight, bias, dtype)
        assert packs or not layer.packed
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected)
            torch.testing.assert_close(layer.back(slope, layer(x)), back)


def test_a_copy_of_lpips_measures_alike_and_copies_no_packed_weights(lpips):
    image, target = pictures(size=16)
    expected = lpips[3](image, target)
    again = copy.deepcopy(lpips[3])
    assert again._laid_out == (None, []) and torch.equal(again(image, target), expected)


def test_lpips_as_a_loss_reaches_the_weights_of_the_decoder(lpips):
    """Elsewhere the loss was computed under no_grad and trained nothing."""
    decoder = nn.Conv2d(3, 3, 1)
    image, target = pictures()
    lpips[3](decoder(image), target).mean().backward()
    assert decoder.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert not lpips[3](decoder(image), target).requires_grad


def test_lpips_without_a_gradient_is_the_same_number(lpips):
    image, target = pictures()
    with torch.inference_mode():
        expected = lpips[3](image, target)
    assert torch.equal(lpips[3](image.requires_grad_(), target).detach(), expected)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.bfloat16, 0.15), (torch.float16, 0.05)])  # the lpips package: 0.117 and 0.038
def test_the_gradient_of_lpips_does_not_vanish_in_half_precision(lpips, dtype, apart):
    """Where the mean over positions is taken back in float16, a small weight of the loss leaves no gradient at all."""
    image, target = pictures()

    def slope(weight: float, half: bool) -> torch.Tensor:
        leaf = image.clone().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=half):
            (lpips[3](leaf, target) * weight).sum().backward()
        return leaf.grad / weight

    loud, exact = slope(1.0, True), slope(1.0, False)
    assert (loud - exact).norm() < apart * exact.norm()
    torch.testing.assert_close(slope(1e-6, True), loud, rtol=1e-4, atol=1e-8)


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
    with pytest.raises(MissingError, match=r"There is no file .*none.pth, which should hold the heads of LPIPS"):
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


# -- features --------------------------------------------------------------------

SQUEEZENET = Path(__file__).parents[3] / "shared" / "weights" / "squeezenet1_0-imagenet.safetensors"
CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing" / "val"


def random_weights(name: str, path: Path) -> Path:
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(models.get_model(name, weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory) -> Path:
    return random_weights("squeezenet1_0", tmp_path_factory.mktemp("features") / "squeezenet1_0-b66bff10.pth")


@pytest.fixture(scope="module")
def features(squeezenet):
    return {channels: build_features(channels, weights=str(squeezenet)) for channels in (1, 3, 4)}


def build_features(channels: int = 3, **keys):
    plugin = registry.load("perceptual", "features")
    return plugin(plugin.Config(type="features", **keys), image_channels=channels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_features_give_one_distance_per_picture_with_a_gradient_to_the_image_alone(features, channels):
    module = features[channels]
    image, target = (x.requires_grad_() for x in pictures(channels))
    distance = module(image, target)
    assert distance.shape == (2,) and distance.dtype == torch.float32 and (distance > 0).all() and (distance <= 4).all()
    assert torch.equal(module(image, image), torch.zeros(2))
    distance.sum().backward()
    assert image.grad.abs().sum() > 0 and image.grad.isfinite().all() and target.grad is None
    assert all(not p.requires_grad and p.grad is None for p in module.parameters())
    assert not any(part.training for part in module.train().modules())


def test_features_equal_the_formula_of_the_paper(squeezenet):
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    network = models.squeezenet1_0(weights=None).eval()
    network.load_state_dict(torch.load(squeezenet, weights_only=True))
    image, target = pictures(size=40)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = torch.zeros(2)
    with torch.no_grad():
        for end in (2, 6, 11, 13):  # behind the first ReLU, and the last Fire module before each pooling and at the end
            units = [nn.functional.normalize(network.features[:end](((x + 1) / 2 - mean) / deviation), dim=1) for x in (image, target)]
            expected += (units[0] - units[1]).square().sum(1).mean((1, 2)) / 4
    torch.testing.assert_close(build_features(weights=str(squeezenet))(image, target), expected, rtol=1e-4, atol=1e-5)


def test_features_see_grey_repeated_and_alpha_over_mid_grey(features):
    image, target = pictures(1)
    torch.testing.assert_close(features[1](image, target), features[3](image.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1)))
    clear = [torch.cat([x[:, :3], -torch.ones(2, 1, 32, 32)], 1) for x in pictures(4)]
    assert torch.equal(features[4](*clear), torch.zeros(2))


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_features_of_plain_and_identical_pictures_have_a_finite_gradient(features, level):
    plain = torch.full((1, 3, 32, 32), level)
    for target in (plain, pictures(count=1)[0]):
        image = plain.clone().requires_grad_()
        features[3](image, target).sum().backward()
        assert image.grad.isfinite().all()


def test_a_layer_is_compared_as_it_was_before_a_relu_wrote_over_it(squeezenet):
    """torchvision's ReLUs work in place: what a hook keeps without a copy is what comes after them."""
    before = build_features(weights=str(squeezenet), layers=["features.0"])(*pictures())
    after = build_features(weights=str(squeezenet), layers=["features.1"])(*pictures())
    both = build_features(weights=str(squeezenet), layers=["features.1", "features.0"])(*pictures())
    assert not torch.allclose(before, after)
    torch.testing.assert_close(both, (before + after) / 2)


def test_what_lies_behind_the_last_layer_neither_runs_nor_is_loaded(squeezenet, tmp_path):
    state = torch.load(squeezenet, weights_only=True)
    path = tmp_path / "begin.pth"
    torch.save({name: value for name, value in state.items() if name.startswith(("features.0.", "features.3."))}, path)
    module = build_features(weights=str(path), layers=["features.3.squeeze"])
    assert set(module.state_dict()) == {
        "network.features.0.weight",
        "network.features.0.bias",
        "network.features.3.squeeze.weight",
        "network.features.3.squeeze.bias",
    }
    torch.testing.assert_close(module(*pictures()), build_features(weights=str(squeezenet), layers=["features.3.squeeze"])(*pictures()))


@pytest.mark.parametrize(("network", "stages"), [("resnet18", ["relu", "layer1", "layer2", "layer3", "layer4"]), ("regnet_y_400mf", None)])
def test_other_networks_choose_the_last_module_of_each_resolution(network, stages, tmp_path):
    module = build_features(network=network, weights=str(random_weights(network, tmp_path / "weights.pth")))
    assert len(module.layers) == 5 and (stages is None or module.layers == stages)
    assert (module(*pictures()) > 0).all()


def test_unknown_networks_and_layers_name_what_is_near(squeezenet):
    with pytest.raises(ConfigError, match=r"no network 'resnet8'.*'resnet18'"):
        build_features(network="resnet8")
    with pytest.raises(ConfigError, match=r"no layer 'features.4.squeez'.*features\.4\.squeeze"):
        build_features(weights=str(squeezenet), layers=["features.4.squeez"])


def test_pictures_that_the_network_shrinks_to_nothing_are_a_sentence(features):
    smallest = features[3].smallest
    assert 1 < smallest <= 32 and features[3](*pictures(size=smallest)).isfinite().all()
    with pytest.raises(DataError, match=f"at least {smallest} x {smallest} pixels, these have {smallest - 1} x {smallest - 1}"):
        features[3](*pictures(size=smallest - 1))


def test_missing_and_unfit_weights_of_a_network_are_sentences(monkeypatch, tmp_path):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(MissingError, match=r"(?s)squeezenet1_0-b66bff10\.pth are missing.*squeezenet1_0-imagenet\.safetensors"):
        build_features()
    with pytest.raises(MissingError, match=r"resnet18-f37072fd\.pth"):
        build_features(network="resnet18")
    (tmp_path / "squeezenet1_0-imagenet.safetensors").write_bytes(b"no tensors")
    with pytest.raises(MissingError, match="does not hold torchvision's weights of squeezenet1_0"):
        build_features()


def test_a_torchvision_that_does_not_import_is_a_sentence(tmp_path):
    """Beside a torch of another build it raises a RuntimeError."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    code = """
from ldmctl import registry
from ldmctl.errors import MissingError
plugin = registry.load("perceptual", "features")
try:
    plugin(plugin.Config(type="features"), image_channels=3)
except MissingError as error:
    print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert "features needs torchvision, which cannot be imported here: RuntimeError: operator torchvision::nms" in told.stdout


def test_building_features_draws_no_random_numbers(squeezenet):
    torch.manual_seed(0)
    build_features(weights=str(squeezenet))
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.skipif(not (SQUEEZENET.is_file() and CLOTHING.is_dir()), reason="needs ../shared/weights and ../shared/data")
@pytest.mark.parametrize("damage", ["blur", "noise", "shift"])
def test_more_damage_to_a_photograph_is_more_distance(damage):
    module = build_features(weights=str(SQUEEZENET))
    files = sorted(CLOTHING.rglob("*.jpg"))[:4]
    assert len(files) == 4
    image = torch.stack([to_float(to_tensor(resize(load(Image.open(file), channels=3), 96))[:, :96, :96]) for file in files])
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))

    def damaged(strength: int) -> torch.Tensor:
        if damage == "blur":
            return nn.functional.avg_pool2d(image, 2 * strength + 1, 1, strength, count_include_pad=False)
        return image.roll(strength, 3) if damage == "shift" else (image + 0.1 * strength * noise).clamp(-1, 1)

    with torch.no_grad():
        distances = torch.stack([module(damaged(strength), image) for strength in (1, 2, 4)])
    assert (distances[0] > 0.001).all() and (distances.diff(dim=0) > 0).all()
