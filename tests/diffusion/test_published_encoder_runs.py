"""A run that listens to captions by a published encoder ends the same after a stop, and learns the same on two ranks."""

import os
import shutil
import signal

import pytest
from encoders import save
from two_ranks import assert_alike, together

from ldmctl.errors import Stopped
from ldmctl.latents import conditions, stream
from ldmctl.storage import weights

pytest.importorskip("transformers", reason="the extra `text` is not installed")
LOWRES = "conditions.picture={type: lowres, factor: 2, noise: 0.2}"
STEPS = [
    "loop.steps=6",
    "loop.save=2",
    "flip=true",
    "loop.micro=4",
    "drop=0.2",
    "conditions.drop={label: 0.2, text: 0.2, map: 0.2, picture: 0.2}",
]


@pytest.fixture(autouse=True)
def nothing_downloaded(monkeypatch):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, encode, vae_run):
    """A cache of mirrored shapes with three captions and a map each. Read only, but for what is prepared in it."""
    return encode(tmp_path_factory.mktemp("known") / "cache", vae_run, "dataset.maps=true", "dataset.captions=3", "flip=true")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Keys of a denoiser that hears captions by a random BERT, maps, and small pictures with noise."""
    folder = save("bert", tmp_path_factory.mktemp("encoders") / "bert")
    return [f"conditions.text={{type: text, encoder: {folder}, width: 16, dim: 8, length: 12}}", "conditions.map=map", LOWRES]


@pytest.mark.parametrize("store", ["float16", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_stopped_run_by_a_published_encoder_ends_bit_for_bit_the_same(fit_diffusion, cache, words, tmp_path, monkeypatch, store):
    keys = [*words, f"conditions.text.store={store}", *STEPS]
    whole = fit_diffusion(tmp_path / "whole", cache, *keys)
    plain = stream.chosen_in

    def terminated(loop, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(loop, step)

    with monkeypatch.context() as patched:
        patched.setattr(stream, "chosen_in", terminated)
        with pytest.raises(Stopped):
            fit_diffusion(tmp_path / "parts", cache, *keys)
    assert 3 <= weights.read_header(tmp_path / "parts" / "state.safetensors")["scalars"]["step"] < 6
    shutil.rmtree(cache / "conditions")
    monkeypatch.setattr(conditions, "TOGETHER", 7)  # what is prepared again is so in other company, and is the same
    parts = fit_diffusion(tmp_path / "parts", cache, *keys)
    for name in ("state.safetensors", "model.safetensors", "samples/000000006.png", "samples/captions.txt"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_learn_by_a_published_encoder_what_one_learns(fit_diffusion, cache, words, tmp_path, parallel):
    alike = "conditions.picture.noise=0"  # which as dropout is drawn on each rank
    keys = [*words, alike, STEPS[-1], "flip=true", "loop.steps=5", "loop.lr=1e-4", "loop.warmup=1", "loop.clip=null", "preview.count=1"]
    shutil.rmtree(cache / "conditions", ignore_errors=True)  # the ranks share what is to be prepared
    codes, said = together("fit-diffusion", tmp_path / "both", f"latents={cache}", f"machine.parallel={parallel}", *keys)
    assert codes == [0, 0], said
    assert len(list((cache / "conditions").glob("text-*/*.safetensors"))) == 2, "one shard of each rank"
    shutil.rmtree(cache / "conditions")
    alone = fit_diffusion(tmp_path / "alone", cache, *keys)
    assert_alike(alone, tmp_path / "both", parallel)
