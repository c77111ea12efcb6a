"""What is of another shape than its kind promises is refused when it is first used, by the name of the plugin."""

import json
from pathlib import Path

import pytest
from odd_plugins import PERCEPTUAL, SAMPLER
from PIL import Image

from ldmctl.blocks import run_block
from ldmctl.cli.app import run
from ldmctl.errors import PluginError
from ldmctl.testing import check

TINY = Path(__file__).parents[1] / "tiny"
DENOISER = """
class Mixer(nn.Module):
    Config = Plain
    def __init__(self, config, *, channels, size, vector_dim=0, token_dim=0, map_channels=0):
        super().__init__()
        self.mix = nn.Conv2d(channels, {channels}, 1)
    def forward(self, x, timestep, condition=None):
        return {said}
"""
DISCRIMINATOR = """
class Odd(nn.Module):
    Config = Plain
    def __init__(self, config, *, image_channels):
        super().__init__()
        self.score = nn.Conv2d({channels}, {maps}, 4, stride=4)
    def forward(self, image):
        return {said}
"""
DATASET = """
class Odd:
    Config = Plain
    classes = ["cat", "dog"]
    def __init__(self, config, *, split): pass
    def __len__(self): return 8
    def __getitem__(self, index): return {said}
    def stamp(self, index): return str(index)
"""
AUTOENCODER = """
class Odd(nn.Module):
    Config = Plain
    rescale, factor, channels = "channel", 2, 3
    def __init__(self, config, *, image_channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(image_channels, {down}, 2, stride=2), nn.ConvTranspose2d(3, {up}, 2, stride=2)
    def encode(self, image): return self.down(image)
    def draw(self, moments, generator=None): return moments
    def decode(self, latent): return self.up(latent)
    def forward(self, image, generator=None): return {said}
"""
GOOD_FORWARD = "Reconstruction(self.decode(self.encode(image)), {}, {})"
CONDITIONER = """
class Odd(nn.Module):
    Config = Plain
    vector_dim, token_dim, map_channels = {sizes}
    def __init__(self, config, *, classes):
        super().__init__()
        self.table = nn.Embedding(len(classes) + 1, 6)
    def encode(self, given): return {said}
    def null(self, count): return Condition(vector=self.table(torch.zeros(count, dtype=torch.long)))
"""
PICTURE = "torch.zeros(3, 16, 16, dtype=torch.uint8)"


def fit_ae_words(out, *more):
    return ["fit-ae", "--config", TINY / "fit-ae.yaml", "--out", out, "loop.steps=2", *more]


def fit_diffusion_words(out, cache, *more):
    return ["fit-diffusion", "--config", TINY / "fit-diffusion.yaml", "--latents", cache, "--out", out, "loop.steps=2", *more]


@pytest.mark.parametrize(
    ("channels", "said_by_it", "complaint"),
    [
        (1, "self.mix(x)", "forward gave [1, 1, 8, 8], not [1, 3, 8, 8]"),
        ("channels", "self.mix(x)[:1]", "forward gave [1, 3, 8, 8], not [8, 3, 8, 8]"),
        ("channels", "(self.mix(x),)", "forward gave tuple, not [1, 3, 8, 8]"),
        ("channels", "None", "forward gave NoneType, not"),
    ],
)
def test_a_denoiser_of_another_shape_is_refused_in_the_first_step(install, said, vae_cache, tmp_path, channels, said_by_it, complaint):
    install("mix", denoiser={"mixer": "Mixer"}, source=DENOISER.format(channels=channels, said=said_by_it))
    code, _, err = said(*fit_diffusion_words(tmp_path / "ldm", vae_cache, "denoiser={type: mixer}", "conditioner=null"))
    assert code == 4 and f"The denoiser 'mixer' from mix 1.0 does not keep its promise: {complaint}" in err
    assert not (tmp_path / "ldm" / "model.safetensors").exists()


@pytest.mark.parametrize("answer", ["x[:, :1]", "x.flatten(1)", "None", "(x, x)", "x[:1]"])
def test_a_sampler_of_another_shape_writes_no_picture(install, said, sample_words, tmp_path, answer):
    install("odd", sampler={"odd": "Odd"}, source=SAMPLER.format(said=answer))
    code, _, err = said(*sample_words, "--sampler", "odd")
    assert code == 4 and "The sampler 'odd' from odd 1.0 does not keep its promise: the call gave" in err
    assert not list((tmp_path / "samples").glob("*.png"))


@pytest.mark.parametrize("answer", ["(image - target).abs()", "(image - target).abs().mean()", "torch.zeros(7, device=image.device)"])
def test_a_perceptual_of_another_shape_is_refused_before_the_run_begins(install, said, tmp_path, answer):
    install("odd", perceptual={"odd": "Odd"}, source=PERCEPTUAL.format(said=answer))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "perceptual={type: odd}"))
    assert (
        code == 4 and "The perceptual 'odd' from odd 1.0 does not keep its promise: forward gave" in err and not (tmp_path / "ae").exists()
    )


@pytest.mark.parametrize(
    ("channels", "maps", "answer", "complaint"),
    [
        ("image_channels", 7, "[self.score(image)]", "a map of logits) gave [1, 7, 4, 4], not [1, 1, *, *]"),
        ("image_channels", 1, "self.score(image)", "forward gave Tensor, not a list of maps"),
        ("image_channels", 1, "[self.score(image).mean()]", "gave [], not [1, 1, *, *]"),
        (7, 1, "[self.score(image)]", "raised RuntimeError"),
    ],
)
def test_a_discriminator_that_reads_or_gives_other_channels_is_refused(install, said, tmp_path, channels, maps, answer, complaint):
    install("odd", discriminator={"odd": "Odd"}, source=DISCRIMINATOR.format(channels=channels, maps=maps, said=answer))
    words = fit_ae_words(tmp_path / "ae", "discriminator={type: odd}", "perceptual=null", "adversarial.start=0", "adversarial.warmup=0")
    code, _, err = said(*words)
    assert code == 4 and "The discriminator 'odd' from odd 1.0 " in err and complaint in err and not (tmp_path / "ae").exists()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (f"Example({PICTURE}, 7)", "has the label 7, and there are 2 classes"),
        (f"Example({PICTURE}, -2)", "has the label -2, and there are 2 classes"),
        (f"Example({PICTURE}, 'cat')", "has the label 'cat'"),
        (f"({PICTURE}, 1)", "is a tuple, not an Example"),
        ("None", "is a NoneType, not an Example"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_that_is_no_class_and_an_item_that_is_no_example_are_refused(install, said, tmp_path, answer, complaint, workers):
    install("odd", dataset={"odd": "Odd"}, source=DATASET.format(said=answer))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "dataset={type: odd}", "perceptual=null", f"loop.workers={workers}"))
    assert code == 4 and "The dataset 'odd' from odd 1.0 does not keep its promise: item " in err and complaint in err


def test_a_label_of_numpy_is_a_label(install, said, tmp_path):
    install("odd", dataset={"odd": "Odd"}, source="import numpy\n" + DATASET.format(said=f"Example({PICTURE}, numpy.int64(1))"))
    assert said(*fit_ae_words(tmp_path / "ae", "dataset={type: odd}", "perceptual=null"))[0] == 0


@pytest.mark.parametrize(
    ("down", "up", "answer", "complaint"),
    [
        (3, 1, GOOD_FORWARD, "forward gave [8, 1, 16, 16], not [8, 3, 16, 16]"),
        (3, 3, "self.decode(self.encode(image))", "forward gave Tensor, not a Reconstruction"),
        (
            3,
            3,
            "Reconstruction(image * self.up.weight.mean(), {'size': image}, {})",
            "forward (penalty 'size') gave [8, 3, 16, 16], not []",
        ),
    ],
)
def test_an_autoencoder_of_another_shape_is_refused(install, said, tmp_path, down, up, answer, complaint):
    install("odd", autoencoder={"odd": "Odd"}, source=AUTOENCODER.format(down=down, up=up, said=answer))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "autoencoder={type: odd}", "perceptual=null"))
    assert code == 4 and f"The autoencoder 'odd' from odd 1.0 does not keep its promise: {complaint}" in err


@pytest.mark.parametrize(
    ("sizes", "answer", "complaint"),
    [
        ("5, 0, 0", "Condition(vector=self.table(given + 1))", "encode (vector) gave [4, 6], not [4, 5]"),
        ("6, 0, 0", "self.table(given + 1)", "encode gave Tensor, not a Condition"),
        ("0, 6, 0", "Condition(vector=self.table(given + 1))", "encode gave vector, and vector_dim is 0"),
        ("6, 0, 0", "Condition(vector=self.table(given + 1)[:1])", "encode (vector) gave [1, 6], not [4, 6]"),
    ],
)
def test_a_conditioner_that_gives_what_it_has_not_announced_is_refused(install, said, vae_cache, tmp_path, sizes, answer, complaint):
    install("odd", conditioner={"odd": "Odd"}, source=CONDITIONER.format(sizes=sizes, said=answer))
    code, _, err = said(*fit_diffusion_words(tmp_path / "ldm", vae_cache, "conditioner={type: odd}"))
    assert code == 4 and f"The conditioner 'odd' from odd 1.0 does not keep its promise: {complaint}" in err


CAPTIONS = CONDITIONER.format(sizes="0, 6, 0", said="Condition(tokens=self.table(torch.tensor([[len(words)] for words in given.split()])))")
NAMES = '''
class Names(nn.Module):
    """Tokens of a class's name, one for each letter."""
    Config = Plain
    vector_dim, token_dim, map_channels = 0, 6, 0
    def __init__(self, config, *, classes):
        super().__init__()
        self.classes, self.table = [*classes, ""], nn.Embedding(128, 6)
    def encode(self, given):
        codes = [[ord(letter) % 128 for letter in self.classes[label][:4].ljust(4)] for label in given.tolist()]
        return Condition(tokens=self.table(torch.tensor(codes)), mask=torch.ones(len(codes), 4, dtype=torch.bool))
    def null(self, count):
        return self.encode(torch.full((count,), -1))
'''


def test_a_conditioner_that_wants_captions_fails_its_check_as_it_would_fail_in_training(install, said, vae_cache, tmp_path):
    install("odd", conditioner={"odd": "Odd"}, source=CAPTIONS)
    code, _, err = said("plugins", "check", "conditioner", "odd")
    assert code == 4 and "given labels int64 [B]" in err and "odd.py, line" in err
    code, _, err = said(*fit_diffusion_words(tmp_path / "ldm", vae_cache, "conditioner={type: odd}"))
    assert code == 4 and "The conditioner 'odd' from odd 1.0 raised " in err


def test_a_conditioner_that_makes_tokens_of_labels_as_the_host_gives_them_keeps_its_promises(install, said):
    install("names", conditioner={"names": "Names"}, source=NAMES)
    assert said("plugins", "check", "conditioner", "names")[0] == 0


@pytest.mark.parametrize("answer", ["(1 - t).mean(), t.mean()", "1 - t[:1], t[:1]", "1 - t, None"])
def test_a_schedule_of_another_shape_is_refused(install, said, vae_cache, tmp_path, answer):
    source = f"class Odd:\n    Config = Plain\n    def __init__(self, config): pass\n    def marginal(self, t): return {answer}\n"
    install("odd", schedule={"odd": "Odd"}, source=source)
    code, _, err = said(*fit_diffusion_words(tmp_path / "ldm", vae_cache, "schedule={type: odd}"))
    assert code == 4 and "The schedule 'odd' from odd 1.0 does not keep its promise: marginal gave" in err


def test_checkpointing_that_saves_nothing_is_said_once(install, said, vae_cache, tmp_path):
    install("mix", denoiser={"mixer": "Mixer"}, source=DENOISER.format(channels="channels", said="self.mix(x)"))
    words = fit_diffusion_words(tmp_path / "ldm", vae_cache, "denoiser={type: mixer}", "conditioner=null", "loop.checkpointing=true")
    code, _, err = said(*words)
    assert code == 0
    assert err.count("The denoiser 'mixer' from mix 1.0 has no parts that can be recomputed: loop.checkpointing=true saves no memory") == 1
    assert "can be recomputed" not in said(*fit_diffusion_words(tmp_path / "unet", vae_cache, "loop.checkpointing=true"))[2]
    assert callable(run_block)


EVALUATIONS = """
class Twice:
    Config = Plain
    def __init__(self, config): pass
    def evaluations(self, steps): return {said}
    def __call__(self, denoise, x, sigmas, noise):
        for sigma, after in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
            clean = (denoise(x, sigma) + denoise(x, sigma)) / 2
            x = clean + (x - clean) * (after / sigma)
        return x
"""


def test_a_dry_run_counts_what_the_sampler_says_it_takes(install, said, sample_words):
    install("twice", sampler={"twice": "Twice"}, source=EVALUATIONS.format(said="2 * steps"))
    assert run(["plugins", "check", "sampler", "twice"]) == 0
    code, out, _ = said(*sample_words, "--sampler", "twice", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["plan"]["forwards"] == "8"
    assert json.loads(said(*sample_words, "--dry-run", "--json")[1])["plan"]["forwards"] == "4"


def test_a_sampler_that_miscounts_fails_its_check(install, said):
    install("twice", sampler={"twice": "Twice"}, source=EVALUATIONS.format(said="steps"))
    code, _, err = said("plugins", "check", "sampler", "twice")
    assert code == 4 and "evaluations(1) is 1, and the network is evaluated 2 times in 1 steps" in err


ZIP = '''
import io, os, zipfile
from PIL import Image


class Zipped:
    """Pictures in an archive that is opened {how}."""
    class Config(PluginConfig):
        path: str
    def __init__(self, config, *, split):
        self.path, self.classes, self.process, self.archive = config.path, ["all"], 0, None
    def __len__(self):
        return 24
    def __getitem__(self, index):
        if {anew}:
            self.process, self.archive = os.getpid(), zipfile.ZipFile(self.path)
        return Example(Image.open(io.BytesIO(self.archive.read(f"{{index:02}}.png"))), 0)
    def __getstate__(self):
        return {{**self.__dict__, "process": 0, "archive": None}}
    def stamp(self, index):
        return str(index)
'''


@pytest.fixture
def archive(tmp_path):
    """24 pictures, each of one colour, in a zip file."""
    import io
    import zipfile

    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        for index in range(24):
            content = io.BytesIO()
            Image.effect_noise((64, 64), 10 + index).convert("RGB").save(content, "png")
            file.writestr(f"{index:02}.png", content.getvalue())
    return tmp_path / "set.zip"


def test_a_dataset_that_shares_its_open_archive_with_workers_fails_its_check(install, said, archive):
    install("zipped", dataset={"zipped": "Zipped"}, source=ZIP.format(how="once", anew="self.archive is None"))
    code, _, err = said("plugins", "check", "dataset", "zipped", f"path={archive}")
    assert code == 4 and "worker processes read the file that this process has open" in err and "set.zip" in err


@pytest.mark.slow
def test_one_that_opens_it_in_each_process_keeps_its_promises(install, said, archive):
    install("zipped", dataset={"zipped": "Zipped"}, source=ZIP.format(how="in each process", anew="self.process != os.getpid()"))
    assert said("plugins", "check", "dataset", "zipped", f"path={archive}")[0] == 0


def test_and_training_reads_the_right_pictures_even_so(install, archive):
    from ldmctl import registry
    from ldmctl.config.schemas.shared import Image as Settings
    from ldmctl.pictures.batches import Pictures
    from ldmctl.pictures.workers import batches

    install("zipped", dataset={"zipped": "Zipped"}, source=ZIP.format(how="once", anew="self.archive is None"))
    plugin = registry.load("dataset", "zipped")
    dataset = registry.build("dataset", plugin.Config(type="zipped", path=str(archive)), split="train")
    pictures = Pictures(dataset, Settings(size=64), memory=0)
    order = [[(i, i % 24) for i in range(first, first + 8)] for first in range(0, 24 * 16, 8)]
    here = [pictures.batch([(index, None) for _, index in rows]).image for rows in order[:3]]  # the archive is open now
    for number, batch in enumerate(batches(pictures, order, workers=2)):
        assert batch.used == batch.index and batch.image.equal(here[number % 3])


def test_a_misspelt_key_is_told_by_check_as_by_the_verbs(said):
    code, _, err = said("plugins", "check", "autoencoder", "vae", "widht=[8,8]")
    assert code == 2 and "autoencoder 'vae' cannot be made:\n  widht: unknown key. Did you mean 'widths'? Keys here: " in err
    with pytest.raises(PluginError, match="widht: unknown key"):
        from ldmctl_plugins.autoencoders.vae import VAE

        check("autoencoder", VAE, widht=[8, 8])
