"""`ldmctl cache info` says what a cache holds beside its latents, and `encode-dataset --verify` reads that too."""

import json
import shutil

import pytest
import torch

from ldmctl.cli.app import run
from ldmctl.errors import MismatchError
from ldmctl.latents import prepared
from ldmctl.latents.conditions import captions_of, prepare_captions
from ldmctl.latents.inventory import folders, inventory
from ldmctl.latents.items import Item, write_items
from ldmctl.latents.manifest import read
from ldmctl.latents.pictured import prepare_maps
from ldmctl.latents.reader import open_latents
from ldmctl.stages.verify_cache import verify_cache
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)


class Letters:
    """A frozen half that gives a number for each of the first eight letters."""

    fingerprint = "ab" * 32

    def prepare(self, texts, device=None):
        return [{"tokens": torch.tensor([ord(letter) for letter in text[:8]]).half()[:, None]} for text in texts]

    def cut(self, text):
        return text[8:]


@pytest.fixture
def cache(tmp_path, vae_cache):
    """A cache of 40 + 8 items that says "one" of the first, "twenty" and "a dozen of them" of the second, nothing of the third, "one" of the rest."""
    shutil.copytree(vae_cache, tmp_path / "cache")
    manifest, number = read(tmp_path / "cache"), 0
    for row in manifest.splits.values():
        for shard in row:
            items = []
            for _ in range(shard.count):
                texts = {1: ("twenty", "a dozen of them"), 2: ("",)}.get(number, ("one",))
                items.append(Item(f"{number}.png", texts[0], -1, texts if len(texts) > 1 else ()))
                number += 1
            write_items(tmp_path / "cache" / shard.items_file, items)
    return tmp_path / "cache"


def opened(cache):
    manifest = read(cache)
    return [open_latents(cache, manifest, split) for split in ("train", "val")]


def prepare(cache, quiet, *more):
    latents = opened(cache)
    return prepare_captions(Letters(), cache, [*(each for split in latents for each in captions_of(split)), *more], CPU, quiet)


def test_captions_are_counted_those_of_several_each_and_those_that_are_missing(cache):
    said = inventory(cache, read(cache))["captions"]
    assert said == {"items_with": 47, "items_without": 1, "captions": 48, "different": 3, "repeated": 45}


def test_of_prepared_captions_it_says_how_long_they_are_how_many_are_cut_and_which_are_gone(cache, quiet):
    prepare(cache, quiet, ["gone"])
    (found,) = inventory(cache, read(cache))["conditions"]
    assert found["rows"] == 4 and found["in_use"] == 3 and found["cut"] == 1
    assert found["tokens"] == {"p50": 4, "p95": 8, "max": 8}  # of 3, 4, 6 and 8
    assert found["about"] == {"slot": "text", "type": "letters"}
    assert found["bytes"] == sum(file.stat().st_size for file in folders(cache)[0].glob("*.safetensors"))


def test_the_command_says_so_in_lines_and_in_json(cache, quiet, capsys):
    prepare(cache, quiet, ["gone"])
    assert run(["cache", "info", str(cache)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "captions 48, 3 of them different, 45 repeated, 1 item has none" in said
    assert "letters, 4 captions, 1 of them of captions that are gone, tokens p50 4, p95 8, max 8, 25.0% cut" in said
    assert run(["cache", "info", str(cache), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["conditions"][0]["rows"] == 4


def test_of_maps_it_says_which_share_of_the_pixels_each_class_has(tmp_path, encode, fit_ae, quiet):
    ae = fit_ae(tmp_path / "ae", "loop.steps=1", "dataset.maps=true")
    cache = encode(tmp_path / "cache", ae)
    manifest = read(cache)
    maps, _ = prepare_maps(cache, manifest, {split: open_latents(cache, manifest, split) for split in ("train", "val")}, CPU, quiet)
    (found,) = inventory(cache, manifest)["conditions"]
    every = torch.cat([maps["train"].known(torch.arange(40)).value, maps["val"].known(torch.arange(8)).value])
    right = {name: float((every == number).double().mean()) for number, name in enumerate(["background", "circle", "square"])}
    assert found["rows"] == found["counted"] == 48 and found["shape"] == [1, 16, 16] and found["unlabelled"] == 0
    assert found["classes"] == pytest.approx(right) and sum(right.values()) == pytest.approx(1)


def test_a_damaged_folder_is_told_and_the_rest_is_shown(cache, quiet, capsys):
    prepare(cache, quiet)
    (file,) = folders(cache)[0].glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    (folders(cache)[0] / prepared.ABOUT).write_text("{")
    assert run(["cache", "info", str(cache)]) == 0
    assert "DAMAGED" in capsys.readouterr().out


def test_verifying_a_cache_reads_what_conditioners_made(vae_cache, tmp_path, quiet):
    shutil.copytree(vae_cache, tmp_path / "cache")
    prepare(tmp_path / "cache", quiet)
    assert verify_cache(tmp_path / "cache", console=quiet)["conditions"] == 1
    (file,) = folders(tmp_path / "cache")[0].glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(MismatchError) as wrong:
        verify_cache(tmp_path / "cache", console=quiet)
    assert str(file) in str(wrong.value) and "the next fit-diffusion makes its rows again" in str(wrong.value)
    assert "Encode again" not in str(wrong.value), "the latents are whole"


def test_encoding_anew_keeps_what_was_made_of_captions_that_stay(tmp_path, encode, vae_run, quiet):
    cache = encode(tmp_path / "cache", vae_run)
    prepare(cache, quiet)
    (file,) = folders(cache)[0].glob("*.safetensors")
    before = file.read_bytes()
    encode(cache, vae_run, "dataset.count=44", overwrite=True)
    assert read(cache).count("train") == 44 and file.read_bytes() == before
    prepare(cache, quiet)
    assert list(folders(cache)[0].glob("*.safetensors")) == [file], "nothing is made again"
