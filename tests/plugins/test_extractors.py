"""Every extractor keeps its promises; those of others are exactly theirs, and say what to do where their weights are missing."""

from pathlib import Path

import pytest
import torch

from ldmctl import registry
from ldmctl.errors import ConfigError, DataError, MissingError
from ldmctl.testing import check_extractor

SQUEEZENET = Path(__file__).parents[3] / "shared" / "weights" / "squeezenet1_0-imagenet.safetensors"


def build(name, *, channels=3, size=32, classes=(), encoder=None, **keys):
    plugin = registry.load("extractor", name)
    return plugin(plugin.Config(type=name, **keys), image_channels=channels, size=size, classes=classes, encoder=encoder)


def pictures(count=4, channels=3, size=32, seed=0):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def lit(count, size=28, seed=0):
    """Grey pictures in noise, lighter on the left or above, with their labels."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 2
    above = (torch.arange(size) < size // 2).float()[:, None].expand(size, size) * 100
    image = torch.stack([above if each else above.T for each in label])[:, None] + 100 * torch.rand(
        count, 1, size, size, generator=generator
    )
    return image.to(torch.uint8), label


@pytest.mark.parametrize(("name", "keys"), [("fitted", {"steps": 20}), ("latent", {})])
def test_extractors_without_weights_keep_their_promises(name, keys):
    check_extractor(registry.load("extractor", name), **keys)


def test_fitted_learns_the_labels_the_same_way_each_time_and_from_any_batches():
    image, label = lit(128)
    one, other = (build("fitted", channels=1, size=28, classes=["left", "above"], steps=60, batch=16) for _ in range(2))
    one.fit(zip(image.split(100), label.split(100), strict=True))
    other.fit([(image, label)])
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    unseen, truth = lit(64, seed=1)
    features = one(unseen)
    assert features.shape == (64, 96) and (one.logits(features).argmax(1) == truth).float().mean() > 0.95


def test_fitted_without_labels_says_what_else_there_is():
    with pytest.raises(DataError, match=r"have none of two classes or more.*--extractor latent"):
        build("fitted", classes=["only"], steps=1).fit([(pictures(), torch.tensor([0, 0, -1, -1]))])


def test_fitted_shrinks_large_pictures_by_averaging():
    large, small = (build("fitted", size=size, classes="ab") for size in (128, 64))
    large.load_state_dict(small.state_dict())
    image = pictures(size=64)
    assert torch.equal(large(image.repeat_interleave(2, 2).repeat_interleave(2, 3)), small(image))


def test_latent_needs_a_run():
    with pytest.raises(ConfigError, match="--run"):
        build("latent")


# -- networks of others --------------------------------------------------------


@pytest.mark.skipif(not SQUEEZENET.exists(), reason=f"needs {SQUEEZENET.name}")
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_torchvision_gives_the_mean_of_the_last_map(channels):
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    from safetensors.torch import load_file

    theirs = models.squeezenet1_0(weights=None).eval()
    theirs.load_state_dict(load_file(SQUEEZENET))
    extractor = build("torchvision", channels=channels, size=224, weights=str(SQUEEZENET))
    image = pictures(2, channels, 224)
    assert extractor.title == "squeezenet1_0" and extractor.resize == "224x224 by an antialiased bilinear filter"
    features = extractor(image)
    assert features.shape == (2, 512)
    if channels == 3:
        seen = (image / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        torch.testing.assert_close(features, theirs.features(seen).mean((2, 3)), atol=1e-4, rtol=1e-4)


def test_torchvision_names_the_nearest_network_and_refuses_one_without_maps():
    with pytest.raises(ConfigError, match="Did you mean 'resnet18'"):
        build("torchvision", network="resnet81")


@pytest.mark.parametrize("name", ["inception", "clip", "dinov2", "torchvision"])
def test_missing_weights_are_exit_4_with_the_ways_out(name, monkeypatch, tmp_path):
    if name != "torchvision":
        pytest.importorskip("torch_fidelity", exc_type=ImportError)
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=r"(?s)are missing.*Looked for.*Ways out.*--extractor fitted.*or latent") as caught:
        build(name)
    assert caught.value.exit_code == 4


def test_without_torch_fidelity_its_extractors_say_how_to_have_it(monkeypatch):
    import sys

    for name in ("inception", "clip", "dinov2"):
        for module in ("inceptionv3", "clip", "dinov2"):
            monkeypatch.setitem(sys.modules, f"torch_fidelity.feature_extractor_{module}", None)
        with pytest.raises(MissingError, match=r"(?s)pip install 'ldmctl\[fid\]'.*--extractor fitted"):
            build(name)


@pytest.mark.slow
def test_inception_is_torch_fidelitys_own_on_any_pictures(tmp_path):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", exc_type=ImportError)
    file = tmp_path / "inception.pth"
    made = build_inception(module, file)
    extractor = build("inception", weights=str(file), size=40)
    image = pictures(2, size=40)
    assert extractor.resize == "299x299 by TensorFlow 1's bilinear filter"
    assert extractor.title == "inception-v3-compat" and (extractor.frechet, extractor.kernel) == ("FID", "KID")
    assert torch.equal(extractor(image), made(image)[0]) and extractor(image).shape == (2, 2048)
    grey = build("inception", weights=str(file), size=40, channels=1)(image[:, :1])
    assert torch.equal(grey, made(image[:, :1].expand(-1, 3, -1, -1))[0])


class Named(torch.nn.Module):
    """Holds tensors by name, and is an archive of TorchScript as OpenAI's are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @classmethod
    def of(cls, tensors):
        top = cls()
        for name, value in tensors.items():
            *path, last = name.split(".")
            at = top
            for part in path:
                if part not in at._modules:
                    at.add_module(part, cls())
                at = at._modules[part]
            at.register_buffer(last, value)
        return top


def test_clip_is_torch_fidelitys_own_on_any_pictures(tmp_path):
    module = pytest.importorskip("torch_fidelity.feature_extractor_clip", exc_type=ImportError)
    torch.manual_seed(0)
    network = module.CLIPVisual(32, 16, 1, 64, 8)  # numbers out, pixels of a side, one block of width 64, pixels of a patch
    archive = torch.jit.script(Named.of({**network.state_dict(), "text_projection": torch.zeros(8, 32)}))
    archive.save(file := str(tmp_path / "ViT-B-32.pt"))
    theirs = module.FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=file)
    extractor = build("clip", weights=file, size=40)
    image = pictures(2, size=40)
    found = extractor(image)
    assert extractor.resize == f"{extractor.network.resolution}x{extractor.network.resolution} by TensorFlow 1's bilinear filter"
    assert extractor.title == "clip-vit-b-32" and found.shape == (2, 32) and found.dtype == torch.float32 and found.std() > 0.01
    assert torch.equal(found, theirs(image)[0]) and not torch.equal(found[0], found[1])
    grey = build("clip", weights=file, size=40, channels=1)(image[:, :1])
    assert torch.equal(grey, theirs(image[:, :1].expand(-1, 3, -1, -1))[0])


@pytest.mark.slow
def test_a_file_that_would_run_code_or_holds_another_network_is_refused(tmp_path):
    pytest.importorskip("torch_fidelity", exc_type=ImportError)
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    with pytest.raises(MissingError, match="does not hold torch-fidelity's weights of Inception"):
        build("inception", weights=str(other))
    torch.save({"weight": Path("x")}, other)
    with pytest.raises(MissingError, match="does not hold"):
        build("inception", weights=str(other))


# -- DINOv2 ---------------------------------------------------------------------


def vision(width, depth, *, gated=False, grid=37):
    """DINOv2's network with random weights."""
    from ldmctl_plugins.extractors._dinov2 import VisionTransformer

    network = VisionTransformer(width, depth, gated=gated, grid=grid)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return network.eval().requires_grad_(False)


SPLIT = {"attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"), "mlp.w12": ("mlp.gate_proj", "mlp.up_proj")}
CALLED = {
    "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection", "blocks.": "encoder.layer.", "attn.proj": "attention.o_proj",
    "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1", "mlp.w3": "mlp.down_proj",
}  # fmt: skip


def as_transformers(state):
    """The tensors of Meta's file as transformers calls them."""
    found = {}
    for name, value in state.items():
        for ours, theirs in CALLED.items():
            name = name.replace(ours, theirs)
        name = f"layer{name}" if name.startswith("norm.") else name
        ours = next((each for each in SPLIT if each in name), "")
        whole = SPLIT[ours] if ours else ("",)
        found |= {name.replace(ours, each) if ours else name: part for each, part in zip(whole, value.chunk(len(whole)), strict=True)}
    return found


@pytest.mark.parametrize("gated", [False, True])
def test_dinov2_is_the_network_that_transformers_has_under_that_name(gated):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    network = vision(128, 2, gated=gated, grid=3)
    config = transformers.Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=42, patch_size=14, use_swiglu_ffn=gated
    )
    theirs = transformers.Dinov2Model(config).eval()
    if "encoder.layer.0.attention.q_proj.weight" not in theirs.state_dict():
        pytest.skip("another version of transformers has other names")
    lost = theirs.load_state_dict(as_transformers(network.state_dict()), strict=False)
    assert not lost.unexpected_keys and lost.missing_keys == ["embeddings.mask_token"]
    image = torch.randn(2, 3, 42, 42, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(image), theirs(image).pooler_output, atol=1e-4, rtol=1e-4)
    assert network.places(5, 5).shape == (1, 26, 128) and network(image[:, :, :28, :28]).shape == (2, 128)


def test_dinov2_is_made_of_a_file_and_sees_what_torch_fidelity_sees(tmp_path, monkeypatch):
    module = pytest.importorskip("torch_fidelity.feature_extractor_dinov2", exc_type=ImportError)
    network, file = vision(384, 12), tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save({**network.state_dict(), "mask_token": torch.zeros(1, 384)}, file)
    monkeypatch.setattr(torch.hub, "load", lambda *_, **__: network)
    theirs = module.FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])
    extractor = build("dinov2", network="dinov2-vit-s-14", weights=str(tmp_path), size=40)
    image = pictures(2, size=40)
    assert extractor.resize == "224x224 by TensorFlow 1's bilinear filter"
    assert extractor.title == "dinov2-vit-s-14" and extractor(image).shape == (2, 384)
    torch.testing.assert_close(extractor(image), theirs(image)[0], atol=1e-5, rtol=1e-5)
    assert build("dinov2", network="dinov2-vit-s-14", weights=str(file), channels=1)(image[:, :1]).shape == (2, 384)
    with pytest.raises(MissingError, match=r"(?s)does not hold Meta's weights of dinov2-vit-b-14.*another file.*--extractor fitted"):
        build("dinov2", network="dinov2-vit-b-14", weights=str(file))
    torch.save({"cls_token": Path("x")}, file)
    with pytest.raises(MissingError, match="does not hold"):
        build("dinov2", network="dinov2-vit-s-14", weights=str(file))


def build_inception(module, file):
    """torch-fidelity's network with random weights, which are written to a file."""
    network = module.FeatureExtractorInceptionV3.__new__(module.FeatureExtractorInceptionV3)
    torch.nn.Module.__init__(network)
    saved = {}

    def untrained(path, **_):
        shapes = network.state_dict()
        torch.manual_seed(0)
        saved.update({name: value.uniform_(0.5, 1) if "running_var" in name else value for name, value in shapes.items()})
        torch.save(saved, file)
        return saved

    real = torch.load
    torch.load = untrained
    try:
        network.__init__("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file))
    finally:
        torch.load = real
    return network
