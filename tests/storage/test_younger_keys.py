"""Runs and caches made before colour profiles were read go on without them, and say so; new ones read them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ldmctl.cli.app import run
from ldmctl.config.documents import read_config, write_yaml

TINY = Path(__file__).parents[1] / "tiny" / "fit-ae.yaml"
YOUNGER = ("profile", "smallest", "max_pixels")
HOST = ["--device", "cpu", "--precision", "fp32"]
AE = ["fit-ae", "--config", str(TINY), "--data", "photos", *HOST, "loop.workers=0", "image.size=16"]
ENCODE = ["encode-dataset", *HOST, "workers=0"]


def draw(name, seed):
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    picture.save(Path("photos") / name, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def forget(folder):
    """Take out of a folder what an earlier ldmctl did not write."""
    config = read_config(Path(folder))
    config["image"] = {key: value for key, value in config["image"].items() if key not in YOUNGER}
    (Path(folder) / "config.yaml").write_text(write_yaml(config))
    if (file := Path(folder) / "latents.json").exists():
        manifest = json.loads(file.read_text())
        for place in (manifest["image"], manifest["preparation"]["image"]):
            for key in YOUNGER:
                place.pop(key, None)
        file.write_text(json.dumps(manifest))


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A run and a cache as an earlier ldmctl left them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    (tmp_path / "photos" / "train").mkdir(parents=True)
    (tmp_path / "photos" / "val").mkdir()
    for index in range(12):
        draw(f"{'val' if index < 3 else 'train'}/{index}.png", index)
    assert run([*AE, "loop.steps=1", "image.profile=keep", "-q"]) == 0
    assert run([*ENCODE, "-q"]) == 0
    for folder in ("runs/ae", "cache"):
        forget(folder)
    return tmp_path


def profile_of(folder):
    return read_config(Path(folder))["image"]["profile"]


def test_the_same_command_continues_an_old_run_as_it_began_and_says_so(old, capsys):
    assert run([*AE, "loop.steps=2"]) == 0
    said = capsys.readouterr().err
    assert "runs/ae continues as it started, with colour profiles ignored (image.profile=keep)" in said
    assert "Resumed runs/ae at step 1 of 2" in said and profile_of("runs/ae") == "keep"
    assert run([*AE, "loop.steps=3"]) == 0, "and once more, now that its config spells the key out"


def test_an_old_run_is_not_converted_half_way(old, capsys):
    assert run([*AE, "loop.steps=2", "image.profile=srgb"]) == 6
    assert 'image.profile: "keep" there, "srgb" asked for' in capsys.readouterr().err


def test_an_old_cache_takes_up_pictures_as_it_took_the_others(old, capsys):
    assert run(ENCODE) == 0
    assert "cache is complete already" in capsys.readouterr().err
    draw("train/more.png", 99)
    assert run(ENCODE) == 0
    assert "12 latents stay, 1 are encoded" in capsys.readouterr().err and profile_of("cache") == "keep"


def test_an_old_cache_is_not_mixed_with_converted_pictures(old, capsys):
    assert run([*ENCODE, "image.profile=srgb"]) == 6
    assert "image.profile" in capsys.readouterr().err


def test_what_comes_from_an_old_run_sees_pictures_as_it_did(old):
    assert run([*ENCODE, "--out", "second", "-q"]) == 0
    assert profile_of("second") == "keep"


def test_starting_over_reads_profiles(old):
    assert run([*AE, "loop.steps=1", "--overwrite", "-q"]) == 0
    assert profile_of("runs/ae") == "srgb"
    assert run([*AE, "loop.steps=1", "--out", "runs/new", "-q"]) == 0
    assert profile_of("runs/new") == "srgb"
