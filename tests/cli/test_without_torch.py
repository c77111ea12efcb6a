"""Commands that look at what is there import no torch: it takes seconds, and half a gigabyte of memory, before anything is looked at."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ldmctl.config.schemas.verbs import VERBS

OTHERS = ("report", "runs", "data", "cache", "plugins", "configs", "ema", "doctor", "quickstart")


def without_torch(place, *commands):
    """stdout of commands in a process of their own, in which there is no torch."""
    program = (
        "import sys; sys.modules['torch'] = None; from ldmctl.cli.app import run;\n"
        f"for words in {[[str(word) for word in command] for command in commands]!r}: assert run(words) == 0, words"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of twelve pictures of two classes."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    random = np.random.default_rng(0)
    for index in range(12):
        (folder / f"class-{index % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / f"class-{index % 2}" / f"{index}.jpg")
    return folder


def test_a_report_of_a_run_of_its_chain_and_of_pictures(ldm, vae_cache, pictures, tmp_path):
    without_torch(
        tmp_path, ["report", ldm, "--out", "ldm.html"], ["report", ldm, vae_cache, "--alone"], ["report", pictures, "-o", "p.html"]
    )
    page = (tmp_path / "ldm.html").read_text()
    assert "loop.steps" in page and str(vae_cache) in page, "with its keys, and with what it was made from"


def test_what_is_not_at_its_default_is_known_as_it_was_when_the_run_began(ldm, tmp_path):
    told = without_torch(tmp_path, ["runs", "list", ldm.parent], ["runs", "show", ldm])
    assert "loop.steps" in told and "denoiser.widths" in told, "keys of plugins, too, which are not imported"


def test_a_check_of_a_folder_and_of_shapes(pictures, tmp_path):
    told = without_torch(
        tmp_path, ["data", "check", pictures, "--out", "out", "--write-metadata"], ["data", "check", "shapes", "--size", "32"]
    )
    assert "train 1" in told and (tmp_path / "out" / "contact.png").exists() and (pictures / "metadata.jsonl").exists()


def test_caches_plugins_and_presets(vae_cache, tmp_path):
    told = without_torch(tmp_path, ["cache", "info", vae_cache], ["plugins", "list"], ["configs", "list"])
    assert "unet" in told and "mnist" in told


def test_the_help_of_every_command(tmp_path):
    told = without_torch(tmp_path, *([word, "--help"] for word in (*VERBS, *OTHERS)))
    assert told.count("Usage: ldmctl") == len(VERBS) + len(OTHERS)
