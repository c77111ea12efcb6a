"""Runs, caches and samples that an earlier commit left on disk are still read, continued, and sampled to the same pictures.

made_before.tar.xz holds a small one of each kind and make.sh, which says by which commands they were made. later/ in it
has what that commit reported when it continued them itself.
"""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldmctl.cli.app import run
from ldmctl.config.documents import read_config

ARCHIVE = Path(__file__).with_name("made_before.tar.xz")
DENOISERS = ["unet", "dit", "sharded"]
AS_THEN = [
    "-n",
    "4",
    "--steps",
    "4",
    "--sampler",
    "ddim",
    "spacing=trailing",
    "--device",
    "cpu",
    "--precision",
    "fp32",
]  # sampler and spacing were the defaults
LATER = {"discriminator/advantage"}  # what reports have said since


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # Python 3.11.4 has it
    return folder


@pytest.fixture
def before(archive, tmp_path, monkeypatch):
    """A copy of the folder as its owner left it, which is where commands run."""
    shutil.copytree(archive, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def rows(run_folder):
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def pixels(file):
    return np.asarray(Image.open(file)).astype(int)


def test_one_of_each_kind_is_there(archive):
    assert {read_config(archive / name)["autoencoder"]["type"] for name in ("vae", "vqvae")} == {"vae", "vqvae"}
    assert {read_config(archive / name)["denoiser"]["type"] for name in DENOISERS} == {"unet", "dit"}
    assert json.loads((archive / "codes" / "latents.json").read_text())["codes"] is not None
    assert json.loads((archive / "moments" / "latents.json").read_text())["codes"] is None
    assert len(list((archive / "sharded").glob("state-*.safetensors"))) == 2  # a state in parts
    assert list((archive / "unet" / "averages").glob("*.safetensors"))


@pytest.mark.parametrize("name", DENOISERS)
def test_the_same_command_keeps_samples_that_are_there(before, name, capsys):
    """What their text says of model, autoencoder and settings is what it would say now."""
    assert run(["sample", "--run", name, *AS_THEN, "--out", f"{name}-samples", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["made"] == 0


@pytest.mark.parametrize("name", DENOISERS)
def test_sampling_again_makes_the_same_pictures(before, name):
    assert run(["sample", "--run", name, *AS_THEN, "--out", "again"]) == 0
    for seed in range(4):
        old, new = (folder / f"{seed:06d}.png" for folder in (before / f"{name}-samples", before / "again"))
        assert Image.open(old).text["ldmctl"] == Image.open(new).text["ldmctl"]
        assert np.abs(pixels(old) - pixels(new)).max() <= 1  # another processor may round a value to its neighbour


@pytest.mark.parametrize("name", ["vae", "vqvae", *DENOISERS])
def test_a_run_continues_as_it_would_have_then(before, name, capsys):
    verb = "fit-diffusion" if name in DENOISERS else "fit-ae"
    words = ["loop.steps=6", *(["machine.devices=1"] if name == "sharded" else [])]
    assert run([verb, "--config", f"{name}/config.yaml", "--out", name, *words]) == 0
    assert f"Resumed {name} at step 4 of 6" in capsys.readouterr().err
    expected, found = ([row for row in rows(folder) if row["step"] > 4] for folder in (before / "later" / name, before / name))
    assert len(expected) == len(found) >= 3
    for old, new in zip(expected, found, strict=True):  # losses are about 1; another processor or number of threads rounds otherwise
        assert old.keys() == new.keys() - LATER
        measured = {"images_per_second", "peak_share", "memory_gib"}
        assert {key: new[key] for key in old if key not in measured} == pytest.approx(
            {key: value for key, value in old.items() if key not in measured}, rel=2e-3, abs=1e-3
        )


@pytest.mark.parametrize("name", ["moments", "codes"])
def test_a_cache_is_complete_and_verified(before, name, capsys):
    source = {"moments": "vae", "codes": "vqvae"}[name]
    assert run(["encode-dataset", "--out", name, "--verify"]) == 0
    words = ["--run", source, "--out", name, "--device", "cpu", "--precision", "fp32", *(["store=codes"] if name == "codes" else [])]
    assert run(["encode-dataset", *words, "--json"]) == 0
    captured = capsys.readouterr()
    assert f"{name} is whole" in captured.err and f"{name} is complete already" in captured.err


def test_an_average_of_any_length_is_built_from_those_stored_then(before):
    assert run(["ema", "--run", "unet", "--length", "0.08"]) == 0
    assert run(["sample", "--run", "unet@ema-0.080", "-n", "1", "--steps", "2", "--out", "averaged", "--device", "cpu"]) == 0


def test_a_config_written_then_is_a_config_now(before):
    assert run(["fit-ae", "--config", "vqvae/config.yaml", "--out", "new", "--dry-run"]) == 0
