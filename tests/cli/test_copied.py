"""A project that was copied, or moved, as a whole reads its own pictures, and says so; one that was not reads those it always did."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldmctl.cli.app import run
from ldmctl.config.compared import compose_judgement
from ldmctl.config.presets import pictures_of
from ldmctl.config.relocated import beside
from ldmctl.errors import RelocatedWarning
from ldmctl.evaluation.judging import cache_of
from ldmctl.evaluation.report.chain import locate

TINY = Path(__file__).parents[1] / "tiny"
HOST = ["machine.device=cpu", "machine.precision=fp32"]
ENCODE = ["encode-dataset", "--run", "runs/ae", "--out", "cache", *HOST]
MAPPED = ["fit-diffusion", "--config", "ldm.yaml", "--latents", "cache", "--out", "mapped", "conditions.label=null", "conditions.map=map"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A project with pictures, maps, an autoencoder and a cache, whose pictures were named by `--data photos`. Read only."""
    folder, before = tmp_path_factory.mktemp("original"), Path.cwd()
    random = torch.Generator().manual_seed(0)
    os.chdir(folder)
    try:
        for number in range(24):
            for place, shape, most in (("photos", (16, 16, 3), 256), ("photos/masks", (16, 16), 3)):
                Path(place).mkdir(exist_ok=True)
                Image.fromarray(torch.randint(0, most, shape, generator=random, dtype=torch.uint8).numpy()).save(f"{place}/{number}.png")
        lines = (TINY / "fit-ae.yaml").read_text().splitlines()
        Path("ae.yaml").write_text("\n".join(line for line in lines if not line.startswith("dataset:")))
        Path("ldm.yaml").write_text((TINY / "fit-diffusion.yaml").read_text())
        assert run(["fit-ae", "--config", "ae.yaml", "--data", "photos", "--out", "runs/ae", "-q"]) == 0
        assert run([*ENCODE, "-q"]) == 0
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture
def copy(original, tmp_path, monkeypatch):
    """A copy of it beside, as `cp -r` makes one: with new times. In it."""
    shutil.copytree(original, tmp_path / "copy", copy_function=shutil.copyfile)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def told(capsys, *words):
    capsys.readouterr()
    code = run([*words, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


@pytest.mark.parametrize("words", [ENCODE, ["eval-lpips", "--run", "runs/ae", "perceptual=null", *HOST]])
def test_a_copied_project_reads_its_own_pictures_and_says_so_once(original, copy, capsys, words):
    for number in range(12):
        (copy / f"photos/{number}.png").unlink()
    code, _, said = told(capsys, *words)
    assert code == 0, said
    line = f"they are read from {copy / 'photos'}, not from {original / 'photos'}."
    assert said.count(line) == 1 and "was copied or moved together with its pictures" in said
    if words is ENCODE:
        items = "".join(file.read_text() for file in (copy / "cache").glob("*.items.jsonl"))
        assert '"1.png' not in items and '"20.png' in items, "pictures that the copy has no more"


def test_latents_and_maps_of_a_copied_project_are_its_own(original, copy, capsys):
    code, _, said = told(capsys, *MAPPED)
    assert code == 0 and str(copy / "photos") in said
    assert (copy / "mapped/model.safetensors").exists()


def test_a_project_that_was_moved_finds_its_pictures(original, tmp_path, monkeypatch, capsys):
    shutil.copytree(original, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    assert run([*ENCODE, "-q"]) == 0
    (tmp_path / "before").rename(tmp_path / "after")
    monkeypatch.chdir(tmp_path / "after")
    before = (tmp_path / "after/cache/latents.json").read_bytes()
    assert told(capsys, *ENCODE)[0] == 0
    assert (tmp_path / "after/cache/latents.json").read_bytes() == before


def test_a_project_that_was_moved_keeps_maps_features_and_samples(original, tmp_path, monkeypatch, capsys):
    judge = ["eval-samples", "--run", "mapped", "-n", "8", "steps=2", "extractor=latent", "workers=0", *HOST]

    def prepared():
        return {file: file.stat().st_mtime_ns for kind in ("conditions", "features") for file in Path("cache", kind).rglob("*.safetensors")}

    shutil.copytree(original, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    assert told(capsys, *MAPPED)[0] == 0
    code, found, said = told(capsys, *judge)
    assert code == 0 and found["made"] == 8, said
    kept = prepared()
    (tmp_path / "before").rename(tmp_path / "after")
    monkeypatch.chdir(tmp_path / "after")
    assert len(kept) >= 3 and prepared() == kept
    assert told(capsys, *(word.replace("mapped", "again") for word in MAPPED))[0] == 0
    code, found, said = told(capsys, *judge)
    assert code == 0 and found["made"] == 0, said
    assert prepared() == kept


def test_a_run_that_was_copied_alone_reads_the_pictures_that_it_was_made_from(original, tmp_path, recwarn):
    for name in ("elsewhere/runs/ae", "runs/other"):
        shutil.copytree(original / "runs/ae", tmp_path / name)
        assert pictures_of(tmp_path / name)["dataset"]["path"] == str(original / "photos")
    assert pictures_of(original / "runs/ae")["dataset"]["path"] == str(original / "photos")
    assert not [each for each in recwarn if each.category is RelocatedWarning]


def test_a_link_to_pictures_that_all_share_is_no_copy(tmp_path):
    (tmp_path / "shared").mkdir()
    for name in ("one", "two"):
        (tmp_path / name / "runs/ae").mkdir(parents=True)
        (tmp_path / name / "photos").symlink_to(tmp_path / "shared")
    (tmp_path / "two/runs/ae/run.json").write_text(json.dumps({"folder": str(tmp_path / "one/runs/ae")}))
    for recorded in (tmp_path / "one/photos", tmp_path / "shared"):
        assert beside(tmp_path / "two/runs/ae", str(recorded)) == str(recorded)


@pytest.mark.parametrize("record", ["", "[]", '{"folder": 7}', '{"folder": "runs/ae"}', "{}"])
def test_a_record_that_does_not_say_where_the_run_lay_leaves_paths_as_they_are(tmp_path, record):
    (tmp_path / "run.json").write_text(record)
    assert beside(tmp_path, "/photos") == "/photos" and beside(tmp_path, "photos") == "photos"


@pytest.mark.filterwarnings("ignore::ldmctl.errors.RelocatedWarning")
def test_what_a_copied_run_was_made_from_by_an_absolute_path_is_the_copy(original, tmp_path):
    cache = tmp_path / "before/cache"
    shutil.copytree(original, tmp_path / "before")
    words = ["fit-diffusion", "--config", str(original / "ldm.yaml"), "conditions.label=null", "--latents", str(cache)]
    words += ["--out", str(tmp_path / "before/runs/ldm")]
    assert run([*words, "-q"]) == 0
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    ldm = tmp_path / "after/runs/ldm"
    assert cache_of(compose_judgement([], {"run": str(ldm)})[0]) == tmp_path / "after/cache"
    assert locate(str(cache), ldm, "encode-dataset") == tmp_path / "after/cache"
    assert cache_of(compose_judgement([], {"run": str(tmp_path / "before/runs/ldm")})[0]) == cache
