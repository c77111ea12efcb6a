"""A folder of pictures that was moved: every command that needs them says where it looked and how to name the new place, and then works."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldmctl.cli.app import run

TINY = Path(__file__).parents[1] / "tiny"
HOST = ["machine.device=cpu", "machine.precision=fp32"]
WORDS = "conditions.text={type: words, width: 8, depth: 1, heads: 2, dim: 8, vocabulary: 300}"
JUDGE = ["eval-samples", "--run", "ldm", "-n", "6", "--steps", "2", "--extractor", "latent", "--out", "judged", *HOST]
COMMANDS = {  # what asks for the pictures, and the option that names them
    "encode-dataset": (["encode-dataset", "--run", "ae", "--out", "cache", *HOST], "--data"),
    "eval-lpips": (["eval-lpips", "--run", "ae", "perceptual=null", *HOST], "--data"),
    "eval-samples": (JUDGE, "--against"),
    "fit-ae": (["fit-ae", "--config", "ae.yaml", "--out", "ae"], "--data"),
    "fit-token": (
        ["fit-token", "--run", "ldm", "--word", "<mine>", "--out", "mine.safetensors", "--steps", "2", "batch=2", *HOST],
        "--data",
    ),
}
MAPPED = ["fit-diffusion", "--config", "ldm.yaml", "--latents", "cache", "--out", "mapped", "conditions.label=null", "conditions.map=map"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with pictures, captions and maps, an autoencoder, a cache and a run that hears words; then the pictures are moved away."""
    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    random = torch.Generator().manual_seed(0)
    os.chdir(folder)
    try:
        for number in range(24):
            for place, shape in (("photos", (16, 16, 3)), ("photos/masks", (16, 16))):
                Path(place).mkdir(exist_ok=True)
                most = 256 if len(shape) == 3 else 3
                Image.fromarray(torch.randint(0, most, shape, generator=random, dtype=torch.uint8).numpy()).save(f"{place}/{number}.png")
            Path(f"photos/{number}.txt").write_text(f"a <mine> number {number}")
        lines = (TINY / "fit-ae.yaml").read_text().splitlines()
        data = "dataset: {type: folder, path: ./photos}"
        Path("ae.yaml").write_text("\n".join([data, *(line for line in lines if not line.startswith("dataset:"))]))
        Path("ldm.yaml").write_text((TINY / "fit-diffusion.yaml").read_text())
        assert run(["fit-ae", "--config", "ae.yaml", "--out", "ae", "-q"]) == 0
        assert run(["encode-dataset", "--run", "ae", "--out", "cache", "-q", *HOST]) == 0
        assert (
            run(["fit-diffusion", "--config", "ldm.yaml", "--latents", "cache", "--out", "ldm", "-q", WORDS, "conditions.label=null"]) == 0
        )
        Path("photos").rename("moved")
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture
def here(project, tmp_path, monkeypatch):
    """A copy of it, and in it."""
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def answer(capsys, *words):
    capsys.readouterr()
    code = run([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_says_where_it_looked_and_the_option_that_it_names_is_the_way_on(here, capsys, verb):
    words, option = COMMANDS[verb]
    words = [*words, *(["loop.steps=6"] if verb == "fit-ae" else []), *(["data=photos/"] if verb == "fit-token" else [])]
    code, said = answer(capsys, *words)
    assert code == 3 and str(here / "photos") in said["error"]
    if verb != "fit-token":  # which is told its pictures each time
        assert f"If the pictures were moved, {option} FOLDER names the new place." in said["error"]
    before = (here / "cache/latents.json").read_bytes()
    code, said = answer(capsys, *words, option, "moved")
    assert code == 0, said
    if verb == "encode-dataset":
        assert (here / "cache/latents.json").read_bytes() == before, "latents of pictures that only moved are kept"


def test_keys_of_the_data_set_that_an_option_would_forget_are_kept_by_the_way_that_is_named(here, capsys):
    """--data stands for a folder with every key at its default: other pictures would be held out."""
    words = [*COMMANDS["eval-lpips"][0], "dataset.val_share=0.5"]
    code, said = answer(capsys, *words)
    assert code == 3 and "If the pictures were moved, dataset.path=FOLDER names the new place." in said["error"]
    code, said = answer(capsys, *words, "dataset.path=moved")
    assert code == 0 and 4 < said["count"] < 20


def test_a_network_that_listens_to_maps_tells_how_the_cache_learns_of_the_new_place(here, capsys):
    code, said = answer(capsys, *MAPPED)
    way = "ldmctl encode-dataset --run ae --data FOLDER --out cache"
    assert code == 3 and str(here / "photos") in said["error"] and f"{way}." in said["error"]
    assert "names the new place" not in said["error"], "fit-diffusion has no such option"
    assert answer(capsys, *way.replace("FOLDER", "moved").split()[1:], *HOST)[0] == 0
    assert answer(capsys, *MAPPED)[0] == 0
