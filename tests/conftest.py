"""What several tests stand on: tiny configs, and a chain of tiny runs that is made once."""

import os
import signal
from pathlib import Path

import pytest

from ldmctl.latents import recipe

TINY = Path(__file__).parent / "tiny"
for name in [name for name in os.environ if name.startswith("LDMCTL_")]:  # what a person has set decides no test
    del os.environ[name]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--part", metavar="K/N", help="of the slow tests every N-th alone, from the K-th on: 0/3, 1/3 and 2/3 are all of them")


@pytest.hookimpl(trylast=True)  # of what -m and -k leave
def pytest_collection_modifyitems(config, items):
    if part := config.getoption("part"):
        first, every = map(int, part.split("/"))
        slow = [item for item in items if item.get_closest_marker("slow")]
        left = {item for place, item in enumerate(slow) if place % every != first}
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def tiny():
    """tiny("fit-ae", "loop.steps=2") -> the validated config of tests/tiny/fit-ae.yaml with these overrides."""
    from ldmctl.config.presets import compose
    from ldmctl.config.schemas.verbs import VERBS

    def config(verb, *overrides, below=None):
        file = TINY / f"{verb}.yaml"
        return compose(VERBS[verb], config=str(file) if file.exists() else None, overrides=overrides, below=below)[0]

    return config


@pytest.fixture(scope="session")
def quiet():
    """A console that says nothing."""
    from ldmctl.console import Console

    return Console(quiet=True)


@pytest.fixture(scope="session")
def fit_ae(tiny, quiet):
    """fit_ae(out, "loop.steps=2") runs the first stage on tiny shapes -> the folder."""
    from ldmctl.stages.fit_ae import fit_ae as stage

    def run(out, *overrides, **options):
        stage(tiny("fit-ae", *overrides), out, console=quiet, **options)
        return Path(out)

    return run


@pytest.fixture(scope="session")
def encode(tiny, quiet):
    """encode(out, run, "flip=true") encodes the pictures of a fit-ae run -> the folder."""
    from ldmctl.config.presets import pictures_of
    from ldmctl.stages.encode_dataset import encode_dataset

    def run(out, source, *overrides, **options):
        words = [f"run={source}", "machine.device=cpu", "machine.precision=fp32", *overrides]
        encode_dataset(tiny("encode-dataset", *words, below=pictures_of(source)), out, console=quiet, **options)
        return Path(out)

    return run


@pytest.fixture(scope="session")
def fit_diffusion(tiny, quiet):
    """fit_diffusion(out, cache, "loop.steps=2") runs the second stage -> the folder."""
    from ldmctl.latents import manifest
    from ldmctl.stages.fit_diffusion import fit_diffusion as stage

    def run(out, cache, *overrides, **options):
        below = recipe.recipe(manifest.read(cache))
        stage(tiny("fit-diffusion", f"latents={cache}", *overrides, below=below), out, console=quiet, **options)
        return Path(out)

    return run


@pytest.fixture(scope="session")
def vae_run(tmp_path_factory, fit_ae):
    """A run folder of fit-ae with a tiny VAE. Read only."""
    return fit_ae(tmp_path_factory.mktemp("vae") / "ae")


@pytest.fixture(scope="session")
def vqvae_run(tmp_path_factory, fit_ae):
    """A run folder of fit-ae with a tiny VQ-VAE. Read only."""
    return fit_ae(tmp_path_factory.mktemp("vqvae") / "ae", "autoencoder.type=vqvae", *VQVAE)


@pytest.fixture(scope="session")
def vae_cache(tmp_path_factory, encode, vae_run):
    """Latents of the tiny VAE. Read only."""
    return encode(tmp_path_factory.mktemp("vae") / "cache", vae_run)


@pytest.fixture(scope="session")
def vqvae_cache(tmp_path_factory, encode, vqvae_run):
    """Latents of the tiny VQ-VAE. Read only."""
    return encode(tmp_path_factory.mktemp("vqvae") / "cache", vqvae_run)


@pytest.fixture(scope="session")
def sorted_cache(tmp_path_factory, encode, vae_run):
    """Latents that lie sorted by class, three to train on and four held out of each, of `rare`, the third, only held-out ones. Read only."""
    import numpy as np
    from PIL import Image

    folder, random = tmp_path_factory.mktemp("sorted"), np.random.default_rng(0)
    for split, names in {"train": ["cat", "dog", "wolf"], "val": ["cat", "dog", "rare", "wolf"]}.items():
        for name in names:
            (folder / "pictures" / split / name).mkdir(parents=True)
            for index in range({"train": 3, "val": 4}[split]):
                picture = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(picture).save(folder / "pictures" / split / name / f"{index}.png")
    return encode(folder / "cache", vae_run, f"data={folder / 'pictures'}")


@pytest.fixture(scope="session")
def sorted_run(tmp_path_factory, fit_diffusion, sorted_cache):
    """A run folder of fit-diffusion on them. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("sorted") / "ldm", sorted_cache)


@pytest.fixture(scope="session")
def vqvae_words():
    """Overrides that make the tiny autoencoder a VQ-VAE."""
    return ["autoencoder.type=vqvae", *VQVAE]


@pytest.fixture
def towers(tmp_path):
    """Random weights of VGG16 and of squeezenet1_1, in the files that perceptual plugins read: {"lpips": path, "features": path}."""
    import torch

    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    paths = {"lpips": tmp_path / "vgg16.pth", "features": tmp_path / "squeezenet.pth"}
    with torch.device("meta"):
        tower = models.vgg16(weights=None).features
    state = {f"features.{name}": torch.randn(value.shape) * 0.03 for name, value in tower.state_dict().items()}
    torch.save(state, paths["lpips"])
    torch.save(models.squeezenet1_1(weights=None).state_dict(), paths["features"])
    return {name: str(path) for name, path in paths.items()}


VQVAE = [
    "autoencoder.channels=3",
    "autoencoder.widths=[8,8]",
    "autoencoder.layers=1",
    "autoencoder.norm_groups=4",
    "autoencoder.attention=false",
    "autoencoder.codebook_size=16",
]
