"""A dry run says what a denoiser will listen to, how long captions are and what is still to be made, and makes none of it."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl.console import Console
from ldmctl.diffusion.typical import TYPICAL, item_of
from ldmctl.latents.conditions import Captions, Several, prepare_captions
from ldmctl.plan import plan_fit_diffusion
from ldmctl.stages.fit_diffusion import fit_diffusion as stage
from ldmctl.storage import weights
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
HEARS = ["conditions.text=words", "conditions.map=map", "conditions.picture=lowres", "loop.steps=1"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory, encode, vae_run):
    """Six pictures and two held out, each with a map of classes 0 to 2 that nobody has named; four have captions, two of them the same."""
    home, random = tmp_path_factory.mktemp("foreseen"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        (home / "pictures" / split / "masks").mkdir(parents=True)
        for number in range(count):
            picture = home / "pictures" / split / f"{split}{number}.png"
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(picture)
            Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) % 3).save(picture.parent / "masks" / picture.name)
            if split == "train" and number < 4:
                picture.with_suffix(".txt").write_text("a cat" if number < 2 else "a dog in a house " * number)
    return encode(home / "cache", vae_run, f"data={home / 'pictures'}")


@pytest.fixture
def planned(tiny, cache):
    """planned("conditions.text=words") -> the plan of a fit-diffusion."""
    return lambda *words: plan_fit_diffusion(tiny("fit-diffusion", f"latents={cache}", "conditions.label=null", *words))


class Letters:
    """As many tokens as letters."""

    kept = False

    def prepare(self, texts, device=None):
        return [{"ids": torch.zeros(len(text), dtype=torch.int16)} for text in texts]

    def cut(self, text):
        return ""


def test_the_caption_that_stands_for_all_is_longer_than_most_and_memory_is_tried_with_the_longest(tmp_path, quiet):
    lengths = np.random.default_rng(0).permutation(100) + 1
    captions = [("x" * length,) for length in lengths] + [()]
    known = Several({"text": Captions(prepare_captions(Letters(), tmp_path, captions, CPU, quiet), captions)})
    assert lengths[item_of(known, TYPICAL)] == 95 and lengths[item_of(known, 1)] == 100
    assert item_of(Several({}), 1) == 0, "where there are no captions, any item"


def test_a_plan_says_what_is_listened_to_and_what_is_still_to_be_made_and_makes_nothing(planned, cache):
    plan = planned(*HEARS)
    assert plan["listens"] == "to captions (words, 4 of 6 items), maps (3 classes, 6 of 6 items) and pictures (lowres)"
    assert re.match(r"3 different, tokens p50 \d+, p95 (\d+), max \1$", plan["captions"])
    assert plan["maps"] == "8 maps to be made, about 2.0 kB on disk"  # of 16 x 16 pixels
    assert plan["small pictures"] == "8 pictures to be made, about 384 B on disk"  # of 3 x 4 x 4
    assert not (cache / "conditions").exists()


def test_the_network_of_a_plan_is_that_of_the_run(planned, cache, fit_diffusion, tmp_path):
    """Above all it has as many channels for maps, of which nobody has said how many classes there are."""
    plan = planned(*HEARS)
    run = fit_diffusion(tmp_path / "ldm", cache, "conditions.label=null", *HEARS)
    tensors, header = weights.load(run / "model.safetensors")
    buffers = tensors["text.empty"].numel()
    assert header["conditions"]["map"]["context"]["maps"] == {"classes": ["0", "1", "2"], "channels": 1}
    assert plan["network"].startswith(f"{sum(value.numel() for value in tensors.values()) - buffers:,} parameters")
    again = planned(*HEARS)
    assert again["network"].split(",")[:2] == plan["network"].split(",")[:2]
    assert again["maps"] == "all 8 maps are kept" and again["small pictures"] == "all 8 pictures are kept"


def test_longer_captions_are_more_arithmetic(planned):
    alone, heard = (float(re.search(r"([\d.]+(e-\d+)?) GFLOP", planned(*words)["network"])[1]) for words in ([], ["conditions.text=words"]))
    assert heard > 1.5 * alone  # 2 layers of 64 words, 128 wide, beside 8 channels


def test_what_is_not_listened_to_is_said(planned):
    said = planned()["listens"]
    assert said.startswith("to nothing, so samples are of all the pictures there are; not to captions, which 4 of 6 items have; ")
    assert said.endswith("not to the maps beside the pictures (conditions.map=map)")
    assert planned("conditions.text=words", "conditions.map=map")["listens"].endswith("maps (3 classes, 6 of 6 items)")


def test_a_run_says_what_it_listens_to_and_how_many_captions_are_cut(tiny, cache, tmp_path, capsys):
    words = ["conditions.label=null", "conditions.text={type: words, length: 8}", "loop.steps=1"]
    stage(tiny("fit-diffusion", f"latents={cache}", *words), tmp_path / "ldm", console=Console())
    said = " ".join(capsys.readouterr().err.split())
    assert "listens to captions (words, 4 of 6 items)" in said
    assert "2 of 3 captions are longer than the denoiser hears: their ends are left out." in said
