"""The conformance checks: a plugin installed by a third party passes, a broken one of each kind is caught and told why."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ldmctl import registry
from ldmctl.config.base import PluginConfig
from ldmctl.errors import DataError, PluginError
from ldmctl.protocols import Condition, Example, Reconstruction
from ldmctl.testing import CHECKS, check, check_autoencoder

SAMPLE = Path(__file__).parents[1] / "sample_plugin"


class Plain(PluginConfig):
    """A Config without keys."""


# -- a good plugin of each kind, as short as can be -----------------------------------


class Autoencoder(nn.Module):
    Config = Plain
    rescale = "channel"
    factor, channels = 2, 4

    def __init__(self, config, *, image_channels):
        super().__init__()
        self.down = nn.Conv2d(image_channels, 4, 2, stride=2)
        self.up = nn.ConvTranspose2d(4, image_channels, 2, stride=2)
        self.register_buffer("calls", torch.zeros(()))

    def encode(self, image):
        return self.down(image)

    def draw(self, moments, generator=None):
        return moments + 0.1 * torch.randn(moments.shape, generator=generator)

    def decode(self, latent):
        return self.up(latent)

    def forward(self, image, generator=None):
        latent = self.draw(self.encode(image), generator)
        return Reconstruction(self.decode(latent), {"size": latent.square().mean()}, {"width": latent.detach().std()})

    def after_step(self):
        self.calls += 1
        return ["calls"]


class Discriminator(nn.Module):
    Config = Plain

    def __init__(self, config, *, image_channels):
        super().__init__()
        self.score = nn.Conv2d(image_channels, 1, 4, stride=4)

    def forward(self, image):
        return [self.score(image)]


class Schedule:
    Config = Plain

    def __init__(self, config):
        pass

    def marginal(self, t):
        return 1 - t, t


class Denoiser(nn.Module):
    Config = Plain

    def __init__(self, config, *, channels, size, vector_dim, token_dim, map_channels):
        super().__init__()
        if token_dim or map_channels:
            raise PluginError("only vectors are heard")
        self.mix = nn.Conv2d(channels, channels, 1)
        self.time = nn.Linear(1, channels)
        self.vector = nn.Linear(vector_dim, channels) if vector_dim else None

    def forward(self, x, timestep, condition=None):
        said = self.time(timestep[:, None] / 1000)
        if self.vector is not None and condition is not None:
            said = said + self.vector(condition.vector)
        return self.mix(x) + said[..., None, None]


class Sampler:
    Config = Plain

    def __init__(self, config):
        pass

    def __call__(self, denoise, x, sigmas, noise):
        for sigma, sigma_next in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
            clean = denoise(x, sigma)
            x = clean + (x - clean) * (sigma_next / sigma)
        return x


class Dataset:
    Config = Plain

    def __init__(self, config, *, split):
        self.split = split
        self.classes = ["dark", "light"]

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return Example(Image.new("RGB", (20, 30), (40 * index,) * 3), index // 3, f"number {index}")

    def stamp(self, index):
        return f"{self.split}/{index}"


class Perceptual(nn.Module):
    Config = Plain

    def __init__(self, config, *, image_channels):
        super().__init__()

    def forward(self, image, target):
        return (image - target.detach()).square().mean((1, 2, 3))


class Conditioner(nn.Module):
    Config = Plain
    vector_dim, token_dim, map_channels = 6, 0, 0

    def __init__(self, config, *, classes):
        super().__init__()
        self.table = nn.Embedding(len(classes) + 1, 6)

    def encode(self, given):
        return Condition(vector=self.table(torch.as_tensor(given).where(torch.as_tensor(given) >= 0, 3)))

    def null(self, count):
        return self.encode([-1] * count)


class Guide:
    Config = Plain

    def __init__(self, config, *, image_channels, **context):
        pass

    def loss(self, image):
        return image.square().mean((1, 2, 3))


class Tracker:
    Config = Plain

    def __init__(self, config, *, run):
        self.file = (run / "log.txt").open("a")

    def log(self, step, scalars):
        self.file.write(f"{step} {dict(scalars)}\n")

    def image(self, step, path):
        self.file.write(f"{step} {path}\n")

    def close(self):
        self.file.close()


class Extractor(nn.Module):
    class Config(PluginConfig):
        pass

    def __init__(self, config, *, image_channels, size, classes=(), encoder=None):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def fit(self, batches):
        self.mean.fill_(sum(image.float().mean() for image, _ in batches))

    def forward(self, image):
        return image[:, :, ::8, ::8].flatten(1).float() - self.mean

    def logits(self, features):
        return features[:, :2]


GOOD = {
    cls.__name__.lower(): cls
    for cls in (Autoencoder, Discriminator, Schedule, Denoiser, Sampler, Dataset, Perceptual, Conditioner, Guide, Tracker, Extractor)
}


@pytest.mark.parametrize("kind", registry.GROUPS)
def test_a_good_plugin_of_each_kind_passes(kind):
    before = torch.get_rng_state()
    check(kind, GOOD[kind])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_good_autoencoder_may_offer_more():
    offers = {
        **CODED,
        "code_count": 4,
        "decoding": ("up",),
        "last_layer": property(lambda self: self.up.weight),
        "bits": lambda self, moments: moments.new_full((len(moments),), 2.0 * moments[0, 0].numel()),
    }
    check("autoencoder", type("Generous", (Autoencoder,), offers))


class Noted(Dataset):
    def note(self, index):
        return index // 3, f"number {index}"


def test_a_good_dataset_may_note_its_items_without_opening_them():
    check("dataset", Noted)


class Told(Dataset):
    def captions(self, index):
        return [f"number {index}", f"the {index}. picture"] if index % 2 else []


def test_a_good_dataset_may_have_several_captions():
    check("dataset", Told)


class Mapped(Dataset):
    """The left of each picture is ground, a corner of it nothing."""

    map_classes = ("sky", "ground")
    drawn = np.uint8([*[[1, 1, 0, 0]] * 5, [255, 1, 0, 0]])

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item._replace(map=None if index % 2 else self.drawn)

    def map_stamp(self, index):
        return "" if index % 2 else "drawn 1"


def test_a_good_dataset_may_have_maps():
    check("dataset", Mapped)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"map_classes": ("sky",)}, r"the map of item \d+ holds the numbers \[1\], and there are 1 map_classes; 255 is none"),
        ({"drawn": Mapped.drawn.astype(np.float32)}, r"uint8 \[H,W\] or \[K,H,W\], but float32 \[6, 4\]"),
        ({"has_maps": False}, "has a map, and has_maps says that none has one"),
        ({"map_classes": property(lambda self: [self.split])}, "the two splits name different map_classes"),
        ({"map_stamp": lambda self, index: ""}, "has a map with the stamp '', not a string"),
    ],
)
def test_what_is_wrong_with_maps_is_said(changes, complaint):
    globals()["Broken"] = cls = type("Broken", (Mapped,), {**changes, "__module__": __name__})
    with pytest.raises(PluginError, match=complaint):
        check("dataset", cls)


def test_a_map_of_another_shape_than_its_picture_is_said():
    globals()["Broken"] = cls = type("Broken", (Mapped,), {"drawn": Mapped.drawn[:2], "__module__": __name__})
    with pytest.raises(DataError, match="4x2 pixels and its picture"):
        check("dataset", cls)


def test_a_good_denoiser_may_show_its_tokens():
    check("denoiser", type("Open", (Denoiser,), showing()))


def test_a_good_denoiser_may_listen_to_tokens():
    mean = lambda tokens, mask: (tokens * mask).sum(1) / mask.sum(1).clamp(min=1)
    check("denoiser", type("Hearing", (Denoiser,), hearing(mean)))


def test_there_is_a_check_for_every_kind():
    assert list(CHECKS) == list(registry.GROUPS)
    with pytest.raises(PluginError, match="Did you mean 'sampler'"):
        check("samplr", Sampler)


# -- and what is wrong with the others -------------------------------------------------


def showing(change: Callable = lambda out, hidden: (out, hidden), *, most: int = 1, **members) -> dict:
    """Members of a denoiser that also shows tokens: those after its one block are its prediction."""

    def forward_with_hidden(self, x, timestep, condition=None, *, block):
        if block > most:
            raise PluginError("no such block")
        out = self(x, timestep, condition)
        return change(out, (out if block else self.mix(x)).flatten(2).transpose(1, 2))

    return {"forward_with_hidden": forward_with_hidden, "depth": 1, "grid": (16, 8), **members}


def hearing(pooled: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> dict:
    """Members of a denoiser that also adds a mean of tokens [B,N,D], of which those count that the mask [B,N,1] has at 1."""

    def init(self, config, *, channels, size, vector_dim, token_dim, map_channels):
        Denoiser.__init__(self, config, channels=channels, size=size, vector_dim=vector_dim, token_dim=0, map_channels=map_channels)
        self.word = nn.Linear(token_dim, channels) if token_dim else None

    def forward(self, x, timestep, condition=None):
        if self.word is None or condition is None:
            return Denoiser.forward(self, x, timestep, condition)
        pool = pooled(condition.tokens, condition.mask[:, :, None].float())
        return Denoiser.forward(self, x, timestep) + self.word(pool)[..., None, None]

    return {"__init__": init, "forward": forward}


def counting_forward(self, image, generator=None):
    self.calls += 1
    return Autoencoder.forward(self, image, generator)


def with_a_fact(name: str, fact: Callable) -> Callable:
    def forward(self, image, generator=None):
        out = Autoencoder.forward(self, image, generator)
        return out._replace(facts={name: fact(out.image)})

    return forward


def secretive(self, config, *, image_channels):
    Autoencoder.__init__(self, config, image_channels=image_channels)
    self.secret = torch.rand(1, 4, 1, 1)  # not a buffer


def forgetful(self, image):
    self.score.bias.data += 1
    return [self.score(image)]


def frozen(self, config, *, image_channels):
    Autoencoder.__init__(self, config, image_channels=image_channels)
    self.up.requires_grad_(False)


CODED = {  # by the channel that is highest; `decode` sees no more than `lookup` gives
    "codes": lambda self, moments: moments.argmax(1),
    "lookup": lambda self, codes: torch.nn.functional.one_hot(codes, 4).movedim(-1, 1).float(),
    "draw": lambda self, moments, generator=None: moments,
    "decode": lambda self, latent: self.up(self.lookup(self.codes(latent)) + latent - latent.detach()),
}


class Trusting(PluginConfig):
    model_config = {"extra": "ignore"}


class Forgetful(PluginConfig):
    width: int = 4

    def model_dump(self, **options):
        return {"type": self.type, "width": 5}


def global_noise(self, denoise, x, sigmas, noise):
    return Sampler.__call__(self, denoise, x, sigmas, noise) + torch.randn(x.shape) * 1e-3


def in_place(self, denoise, x, sigmas, noise):
    return x.copy_(Sampler.__call__(self, denoise, x, sigmas, noise))


def one_step(self, denoise, x, sigmas, noise):
    return denoise(x, sigmas[0])


def half_way(self, denoise, x, sigmas, noise):
    return Sampler.__call__(self, denoise, x, sigmas[:-1], noise)


def denoise_the_clean(self, denoise, x, sigmas, noise):
    return denoise(Sampler.__call__(self, denoise, x, sigmas, noise), sigmas[-1])


def batch_mean(self, denoise, x, sigmas, noise):
    out = Sampler.__call__(self, denoise, x, sigmas, noise)
    return out + 0.01 * (out - out.mean(0))


def root(self, image, target):
    return (image - target.detach()).square().mean((1, 2, 3)).sqrt()  # infinite slope at 0


BROKEN = [
    ("autoencoder", {"Config": None}, "no nested class Config"),
    ("autoencoder", {"Config": Trusting}, "keys that it does not know"),
    ("autoencoder", {"Config": Forgetful}, "another one after it was written"),
    ("autoencoder", {"rescale": "none"}, "rescale is 'none'"),
    ("autoencoder", {"factor": 4}, r"not \[B,m,8,9\]"),
    ("autoencoder", {"channels": 3}, "draw gave"),
    (
        "autoencoder",
        {"draw": lambda self, moments, generator=None: moments + torch.randn(moments.shape)},
        "same latent for the same generator",
    ),
    ("autoencoder", {"decode": lambda self, latent: self.up(latent - latent.mean())}, "other pictures of a batch"),
    ("autoencoder", {"forward": counting_forward}, "forward changes calls"),
    ("autoencoder", {"forward": with_a_fact("mean", lambda image: image.mean())}, "'mean' is not a detached tensor"),
    ("autoencoder", {"forward": with_a_fact("codes", lambda image: image.detach().sum((0, 2, 3)))}, "'codes' has shape"),
    (
        "autoencoder",
        {"decode": lambda self, latent: self.up(latent).detach() + 0 * latent.mean()},
        "no gradient reaches up.weight, up.bias",
    ),
    ("autoencoder", {"after_step": lambda self: ["codebook"]}, "names .'codebook'."),
    ("autoencoder", {"after_step": lambda self: {"up.bias": [0]}}, "as the rows of up.bias"),
    ("autoencoder", {"after_step": lambda self: {"up.bias": torch.tensor([999])}}, "numbers rows that up.bias does not have"),
    ("autoencoder", {"codes": lambda self, moments: moments}, "come together"),
    (
        "autoencoder",
        {"codes": lambda self, m: m.argmax(1), "lookup": lambda self, c: c[:, None].repeat(1, 4, 1, 1).float()},
        "decoded from its codes",
    ),
    ("autoencoder", {"decoding": "up"}, "decoding is 'up', not a list"),
    ("autoencoder", {"decoding": ("up", "out")}, r"decoding names \['out'\]"),
    ("autoencoder", {"decoding": ("down", "up")}, "encode uses down, up"),
    (
        "autoencoder",
        {**CODED, "decoding": ("up",), "codes": lambda self, moments: (moments + self.up.weight[:, 0, :1, :1] / 2).argmax(1)},
        "codes use up",
    ),
    ("autoencoder", {"last_layer": property(lambda self: self.up.weight.detach())}, "last_layer is not one of its parameters"),
    ("autoencoder", {"__init__": frozen, "last_layer": property(lambda self: self.up.weight)}, "no gradient reaches last_layer"),
    ("autoencoder", {"code_count": 4}, "there is no method `codes`"),
    ("autoencoder", {**CODED, "code_count": 4.0}, "code_count is 4.0"),
    ("autoencoder", {**CODED, "code_count": 3}, "codes go from 0 to 3, and code_count is 3"),
    ("autoencoder", {"bits": lambda self, moments: moments.abs().sum()}, r"bits gave \[\], not \[B\]"),
    ("autoencoder", {"bits": lambda self, moments: moments.abs().sum((1, 2, 3)).neg()}, "finite and not negative"),
    ("autoencoder", {"__init__": secretive, "decode": lambda self, latent: self.up(latent * self.secret)}, "outside of parameters"),
    ("discriminator", {"forward": lambda self, image: self.score(image)}, "not a list of maps"),
    ("discriminator", {"forward": lambda self, image: [self.score(image).mean((2, 3))]}, "not .B,1"),
    ("discriminator", {"forward": lambda self, image: [self.score(image.detach())]}, "no gradient reaches the picture"),
    ("discriminator", {"forward": forgetful}, "forward changes score.bias"),
    ("schedule", {"marginal": lambda self, t: (t, 1 - t)}, "t = 0 is not data"),
    ("schedule", {"marginal": lambda self, t: (1 - t / 2, t / 2)}, "t = 1 is not noise"),
    ("schedule", {"marginal": lambda self, t: (1 - (t * 10).floor() / 10, (t * 10).floor() / 10)}, "does not rise"),
    ("schedule", {"marginal": lambda self, t: ((1 - t).double(), t.double())}, "float64 for float32"),
    ("schedule", {"timesteps": 0}, "timesteps is 0"),
    ("schedule", {"timestep": lambda self, t: 1000 - t}, "timestep does not rise"),
    ("denoiser", {"forward": lambda self, x, t, condition=None: x[:, :1]}, "forward gave"),
    (
        "denoiser",
        {"forward": lambda self, x, t, condition=None: Denoiser.forward(self, x, 0 * t, condition)},
        "does not depend on the timestep",
    ),
    (
        "denoiser",
        {"forward": lambda self, x, t, condition=None: self.mix(x) + self.time(t[:, None])[..., None, None]},
        "no gradient reaches vector",
    ),
    (
        "denoiser",
        {"forward": lambda self, x, t, condition=None: Denoiser.forward(self, x - x.mean(0), t, condition)},
        "other latents of a batch",
    ),
    ("denoiser", hearing(lambda tokens, mask: tokens.mean(1)), "depends on tokens that do not count"),
    ("denoiser", hearing(lambda tokens, mask: (tokens * mask).mean(1)), "depends on how far tokens are padded"),
    ("denoiser", hearing(lambda tokens, mask: tokens[:, 0]), "does not depend on which tokens count"),
    ("denoiser", hearing(lambda tokens, mask: (tokens * mask).sum(1) / mask.sum(1)), "not finite where no token counts"),
    ("denoiser", showing(lambda out, hidden: (out + 1e-6, hidden)), "does not give what forward gives"),
    ("denoiser", showing(lambda out, hidden: (out, hidden.transpose(1, 2))), r"gave tokens \[2, 4, 128\], not \[2, 128, 128\]"),
    ("denoiser", showing(lambda out, hidden: (out, hidden.detach())), "hidden tokens have no gradient"),
    ("denoiser", showing(lambda out, hidden: (out, hidden[:1].expand(2, -1, -1) * 0)), "no gradient reaches the blocks before"),
    ("denoiser", showing(depth=2, most=2), "come from no later block than those before"),
    ("denoiser", showing(most=9), "is refused by no PluginError, though depth is 1"),
    ("denoiser", showing(depth=None), "depth is None"),
    ("denoiser", showing(grid=128), "grid is 128"),
    ("sampler", {"__call__": global_noise}, "two samples for the same noise"),
    ("sampler", {"__call__": in_place}, "belong to the caller"),
    ("sampler", {"__call__": one_step}, "are sampled with"),
    ("sampler", {"__call__": half_way}, "miss a known answer|are sampled with"),
    ("sampler", {"__call__": denoise_the_clean}, "at sigma = 0"),
    ("sampler", {"__call__": batch_mean}, "others of its batch"),
    ("dataset", {"__len__": lambda self: 0}, "nothing to train on"),
    ("dataset", {"__getitem__": lambda self, index: (torch.zeros(3, 8, 8), 0)}, "not an Example"),
    ("dataset", {"__getitem__": lambda self, index: Example(Image.new("RGB", (8, 8)), 2)}, "label 2 of 2 classes"),
    ("dataset", {"__getitem__": lambda self, index: Example(torch.zeros(3, 8, 8), 0)}, "neither a Pillow image nor uint8"),
    ("dataset", {"__getitem__": lambda self, i: Example(Image.new("L", (8, 8), random.randrange(256)), 0)}, "not the same the second time"),
    ("dataset", {"stamp": lambda self, index: "always"}, "two items have the same stamp"),
    ("dataset", {"stamp": lambda self, index: f"{id(self)}/{index}"}, "stamp of item 0 changes"),
    ("dataset", {"classes": property(lambda self: [self.split], lambda self, names: None)}, "different classes"),
    ("dataset", {"note": lambda self, index: (index // 3, "")}, r"the note of item 0 is \(0, ''\), not \(0, 'number 0'\)"),
    ("dataset", {"note": lambda self, index: self.notes[index]}, "the note of item 0 raises AttributeError"),
    ("dataset", {"captions": lambda self, index: f"number {index}"}, "captions of item 0 are 'number 0', not a sequence of strings"),
    ("dataset", {"captions": lambda self, index: [f"number {index}", None]}, "not a sequence of strings"),
    (
        "dataset",
        {"captions": lambda self, index: ["more", f"number {index}"]},
        "the first of the captions of item 0 is 'more', not its text",
    ),
    ("dataset", {"captions": lambda self, index: [f"number {index}"] * 2}, "hold an empty or a repeated one"),
    ("dataset", {"captions": lambda self, index: self.told[index]}, "captions of item 0 raises AttributeError"),
    ("perceptual", {"forward": lambda self, image, target: (image - target).square().mean()}, "not .B."),
    ("perceptual", {"forward": lambda self, image, target: (image - target).square().mean((1, 2, 3))}, "flows into the target"),
    ("perceptual", {"forward": root}, "at equal pictures is not finite"),
    ("perceptual", {"forward": lambda self, i, t: Perceptual.forward(self, i + self.training, t)}, "training mode"),
    ("conditioner", {"vector_dim": 8}, "size 8"),
    ("conditioner", {"token_dim": 8, "encode": lambda self, given: Condition(vector=torch.zeros(3, 6))}, "no tokens, and 8 was announced"),
    ("conditioner", {"encode": lambda self, given: Condition(vector=self.table.weight[:1].expand(3, 6))}, "null says the same"),
    ("conditioner", {"null": lambda self, count: Condition()}, "null gave no vector"),
    ("guide", {"loss": lambda self, image: image.square().mean()}, r"not \[B\]"),
    ("guide", {"loss": lambda self, image: image.square().mean((1, 2, 3)) * float("nan")}, "loss is not finite"),
    ("guide", {"loss": lambda self, image: image.detach().square().mean((1, 2, 3))}, "no gradient reaches the picture"),
    ("guide", {"loss": lambda self, image: (image - image.mean(0)).square().mean((1, 2, 3))}, "depends on the other pictures"),
    ("guide", {"loss": lambda self, image: image.square().mean((1, 2, 3)) + torch.rand(1)}, "two values for the same pictures"),
    ("tracker", {"log": lambda self, step, scalars: scalars.clear()}, "log changes the numbers"),
    ("tracker", {"image": lambda self, step, path: path.unlink()}, "image changes the picture"),
    ("tracker", {"close": lambda self: self.files.close()}, "AttributeError"),
    ("extractor", {"forward": lambda self, image: image.float()}, r"not \[B,D\]"),
    ("extractor", {"forward": lambda self, image: Extractor.forward(self, image) - image.float().mean()}, "other pictures of a batch"),
    ("extractor", {"forward": lambda self, image: image.new_zeros(len(image), 3).float()}, "have the same features"),
    ("extractor", {"forward": lambda self, image: Extractor.forward(self, image) + self.training}, "training mode"),
    (
        "extractor",
        {"fit": lambda self, batches: setattr(self, "mean", torch.nn.Parameter(torch.ones(())))},
        "would be trained|cannot assign",
    ),
    ("extractor", {"logits": lambda self, features: features[:, :1]}, "not .B,K."),
]


@pytest.mark.parametrize(("kind", "changes", "complaint"), BROKEN, ids=[f"{kind}-{i}" for i, (kind, _, _) in enumerate(BROKEN)])
def test_a_broken_plugin_is_told_what_it_does_not_keep(kind, changes, complaint):
    cls = type("Broken", (GOOD[kind],), {**changes, "__module__": __name__})
    globals()["Broken"] = cls  # where pickle looks for it
    with pytest.raises(PluginError, match=complaint) as caught:
        check(kind, cls)
    assert f"Broken is not a good {kind}: " in str(caught.value)


def test_every_kind_has_a_broken_plugin_here():
    assert {kind for kind, _, _ in BROKEN} == set(registry.GROUPS)


def test_options_are_keys_of_the_config():
    with pytest.raises(PluginError, match="Config cannot be made of"):
        check("sampler", Sampler, steps=3)


def test_a_plugin_of_a_third_party_is_installed_found_and_keeps_its_promise(tmp_path, monkeypatch):
    source = shutil.copytree(SAMPLE, tmp_path / "source")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*install, "--target", str(tmp_path / "site"), str(source)], capture_output=True, text=True, check=False)
    if done.returncode and ("No module named pip" in done.stderr or "BackendUnavailable" in done.stderr):
        pytest.skip("this environment has no pip or no setuptools")
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    registry._advertised.cache_clear()
    try:
        plugin = registry.find("autoencoder", "lfq")
        assert plugin.source == "ldmctl-lfq 0.1.0"
        check_autoencoder(plugin.load(), widths=[8, 16])
    finally:
        registry._advertised.cache_clear()
        sys.modules.pop("ldmctl_lfq", None)
