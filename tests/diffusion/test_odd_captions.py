"""Captions and prompts as people write them: endless ones, one character, any script, signs alone; by learned words and by a published encoder."""

import json

import numpy as np
import pytest
import torch
from encoders import save
from PIL import Image
from safetensors.torch import load_file
from two_ranks import TINY

from ldmctl.cli.app import run as ldmctl
from ldmctl.diffusion.model import open_model
from ldmctl.latents import manifest
from ldmctl.latents.reader import open_latents
from ldmctl.training.engine import Engine

pytest.importorskip("transformers", reason="the extra `text` is not installed")
CPU = Engine(torch.device("cpu"), torch.float32)
ENDLESS = " ".join(f"word{number % 700}" for number in range(10_000))
ODD = [ENDLESS, "x", "红色的圆", "🙂👩‍👩‍👧", "مرحبا בוקר", "?! ...", "a red\ncircle"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Seven to train on and two held out, with these captions, every other one behind the mark that some editors write."""
    folder, random = tmp_path_factory.mktemp("odd") / "pictures", np.random.default_rng(0)
    for split, captions in {"train": ODD, "val": ODD[:2]}.items():
        (folder / split).mkdir(parents=True)
        for number, caption in enumerate(captions):
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / split / f"{number}.png")
            (folder / split / f"{number}.txt").write_text(caption, encoding="utf-8-sig" if number % 2 else "utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(pictures, encode, vae_run, fit_diffusion, tmp_path_factory):
    """(the cache, a run by words, a run by a random BERT that hears 40 tokens). Read only."""
    folder = tmp_path_factory.mktemp("trained")
    cache = encode(folder / "cache", vae_run, f"data={pictures}")
    text = f"conditions.text={{type: text, encoder: {save('bert', folder / 'bert')}, width: 16, dim: 8}}"
    words = ["conditioner=null", "loop.batch=4"]
    by_words = fit_diffusion(folder / "words", cache, *words, "conditions.text={type: words, width: 16, dim: 8}")
    return cache, by_words, fit_diffusion(folder / "text", cache, *words, text)


def losses(run):
    return [row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]


def test_they_are_kept_as_they_were_written_and_learned_from(trained):
    cache, *runs = trained
    said = [item["text"] for item in open_latents(cache, manifest.read(cache), "train").items()]
    assert said == ODD, "without the mark"
    for run in runs:
        assert len(losses(run)) == 4 and np.isfinite(losses(run)).all()
        assert (run / "samples" / "captions.txt").read_text(encoding="utf-8") == f"{ENDLESS}\nx\n"


@pytest.mark.parametrize("which", [1, 2], ids=["words", "text"])
def test_they_are_prompts_too_and_a_picture_of_one_is_the_same_beside_any_other(trained, which):
    model = open_model(str(trained[which]), CPU, tile=None)
    together = model.sample(len(ODD), steps=2, prompt=[prompt.replace("|", r"\|") for prompt in ODD])
    assert len(together.images) == len(ODD)
    for number in (0, 3):
        alone = model.sample(1, seed=number, steps=2, prompt=ODD[number])
        assert torch.equal(alone.images[0], together.images[number])


@pytest.mark.parametrize("which", [1, 2], ids=["words", "text"])
def test_of_an_endless_prompt_the_end_is_said_to_be_unheard(trained, which, tmp_path, capsys):
    words = ["sample", "--run", str(trained[which]), "--out", str(tmp_path), "-n", "1", "--steps", "1", "--device", "cpu"]
    assert ldmctl([*words, "--prompt", ENDLESS]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "is too long: " in said and "word199', its end, is not heard" in said and len(said) < 1000, "and not all of it"


def test_an_edited_caption_is_read_again_by_the_encoder_and_no_other_is(pictures, encode, vae_run, fit_diffusion, tmp_path):
    text = f"conditions.text={{type: text, encoder: {save('bert', tmp_path / 'bert')}, width: 16, dim: 8}}"
    words = ["conditioner=null", "loop.batch=4", "loop.steps=1", text]
    cache = encode(tmp_path / "cache", vae_run, f"data={pictures}")
    fit_diffusion(tmp_path / "one", cache, *words)
    before = set((cache / "conditions").glob("text-*/*.safetensors"))
    told = pictures / "train" / "1.txt"
    kept = told.read_bytes()
    told.write_text("y")
    try:
        encode(cache, vae_run, f"data={pictures}")
    finally:
        told.write_bytes(kept)
    fit_diffusion(tmp_path / "two", cache, *words)
    (new,) = set((cache / "conditions").glob("text-*/*.safetensors")) - before
    shards = [load_file(file) for file in [new, *before]]
    assert [len(shard["keys"]) for shard in shards] == [1, len(ODD)]


def test_an_encoder_without_its_tokenizer_and_one_for_pictures_without_captions_end_before_training(
    trained, encode, vae_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    encoder = save("bert", tmp_path / "bert", tokenizer=False)
    silent = encode(tmp_path / "silent", vae_run, f"data={write_silent(tmp_path / 'pictures')}")
    words = ["fit-diffusion", "--config", str(TINY / "fit-diffusion.yaml"), "conditioner=null", "loop.batch=4", "conditions.text=text"]
    for cache, code, said in (
        (trained[0], 4, f"{encoder} is no complete text encoder: it lacks a tokenizer (tokenizer.json)."),
        (silent, 2, "conditions.text=text has nothing to listen to: "),
    ):
        assert ldmctl([*words, "--latents", str(cache), f"conditions.text.encoder={encoder}"]) == code
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def write_silent(folder):
    """Pictures without captions."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / split / f"{number}.png")
    return folder
