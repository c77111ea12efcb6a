"""Pictures that go through the network together: more than a batch where that changes no bit, and never otherwise."""

import pytest
import torch

from ldmctl import api
from ldmctl.config.presets import compose
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion import grouping
from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.grouping import LARGEST, SMALLEST, suited, together, with_batch
from ldmctl.training.engine import Engine

ANYTHING = Ask()


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion that listens to labels, with no weight at zero. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("ldm") / "ldm", vae_cache, "loop.lr=1e-2", "loop.ema=0", "loop.steps=4")


@pytest.fixture
def model(ldm):
    return api.load(ldm, device="cpu", precision="fp32")


def config(**keys):
    return compose(Sample, overrides=[], flags=keys)[0]


@pytest.fixture
def forwards(model):
    """Numbers of latents that go through the denoiser together, as they come."""
    seen = []
    hook = model.network.denoiser.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    yield seen
    hook.remove()


def test_many_small_latents_go_through_together_and_make_the_same_bytes(model, forwards):
    words = {"steps": 12, "guidance": 2}
    whole = model.sample(80, **words).images
    assert forwards[:2] == [16, 64], "tried once"
    assert forwards[2:] == ([128] * 12 if model.alike[64] else [32] * 48) + [32] * 12, "with their nulls; then what is left"
    apart = [model.sample(16, seed=first, **words).images for first in range(0, 80, 16)]
    assert torch.equal(whole, torch.cat(apart))


def test_where_bits_differ_a_batch_stays_a_batch(model, forwards, monkeypatch):
    monkeypatch.setattr(grouping, "rounds_alike", lambda *_: False)
    model.sample(64, steps=12)
    assert forwards == [16] * 12 * 4


def test_a_network_that_rounds_by_the_number_of_rows_is_found_out(model):
    denoiser = model.network.denoiser
    handle = denoiser.register_forward_hook(lambda _, given, said: said * (1 + 1e-6 * (len(given[0]) > 16)))
    assert not grouping.rounds_alike(config(), model, ANYTHING, 16, 64)
    handle.remove()


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ({}, 63),  # fewer than would be together
        ({"steps": 2}, 64),  # trying would cost more than it saves
        ({"batch": 4}, 640),  # kernels round fewer rows by their number
        ({"batch": 48}, 640),  # no power of two
        ({"sampler": "adaptive"}, 640),  # waits for the slowest of a batch
        ({"guide": [{"type": "colour", "colour": "red"}]}, 640),
        ({"start": "picture.png"}, 640),
        ({"map": "maps"}, 640),
        ({"picture": "pictures"}, 640),
    ],
)
def test_a_batch_stays_a_batch(model, keys, left, monkeypatch):
    monkeypatch.setattr(grouping, "rounds_alike", lambda *_: True)
    asked = with_batch(config(**keys), model)
    assert together(asked, model, left, ANYTHING) == asked.batch == keys.get("batch", SMALLEST)
    assert together(with_batch(config(), model), model, 640, ANYTHING) == LARGEST


def test_on_a_gpu_the_batch_itself_is_larger_whatever_is_asked_for(model):
    object.__setattr__(model, "engine", Engine(torch.device("cuda"), torch.bfloat16))
    for count in (1, 1000):
        asked = with_batch(config(count=count), model)
        assert asked.batch == together(asked, model, 1000, ANYTHING) == LARGEST
    assert with_batch(config(batch=8), model).batch == 8
    assert with_batch(config(guide=[{"type": "colour", "colour": "red"}]), model).batch == SMALLEST


@pytest.mark.parametrize(("side", "many"), [(8, 64), (32, 64), (40, 32), (64, 16), (4096, 16)])
def test_fewer_of_larger_latents(model, side, many):
    pixels = side * model.codec.autoencoder.factor
    assert suited(config(size=(min(pixels, 4096),) * 2), model, 2**16) == many


def test_the_batch_is_in_the_text_of_a_picture(model):
    assert model.settings(with_batch(config(), model))["batch"] == SMALLEST
