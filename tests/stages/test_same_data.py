"""A run goes on with the pictures that it began with, wherever they lie and whatever they are dated; others are asked for."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldmctl.errors import MismatchError
from ldmctl.pictures import sameness
from ldmctl.pictures.sameness import check_same_pictures, known_of


@pytest.fixture
def pictures(tmp_path):
    folder, random = tmp_path / "project" / "pictures", np.random.default_rng(0)
    for index in range(20):
        file = folder / ("val" if index < 4 else "train") / f"{index:02d}.bmp"  # all of one size, whatever they show
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    return folder


@pytest.fixture
def go(fit_ae):
    return lambda out, data, *words, **options: fit_ae(out, f"data={data}", *words, **options)


def record(folder):
    return json.loads((folder / "run.json").read_text())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def paint(file):
    Image.new("RGB", (16, 16), (250, 0, 0)).save(file)


def add(pictures):
    paint(pictures / "train" / "new.bmp")


def edit(pictures):
    paint(pictures / "train" / "10.bmp")


def remove(pictures):
    (pictures / "val" / "00.bmp").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add, "it had 16 training and 4 held-out pictures, now it has 17 training"),
        (remove, "it had 16 training and 4 held-out pictures, now it has 16 training and 3 held-out"),
        (edit, "it has 16 training and 4 held-out pictures as before, but some of them are others"),
    ],
)
def test_an_autoencoder_asks_before_it_goes_on_with_other_pictures(tmp_path, go, pictures, change, said):
    run = go(tmp_path / "run", pictures, "loop.steps=2")
    change(pictures)
    before = contents(run)
    with pytest.raises(MismatchError, match=f"{said}.*--accept-data") as caught:
        go(run, pictures, "loop.steps=4")
    assert caught.value.exit_code == 6 and contents(run) == before
    go(run, pictures, "loop.steps=4", accept_data=True)
    noted = [each for each in record(run)["changes"] if each["key"] == "pictures"]
    assert len(noted) == 1 and record(run)["step"] == 4
    go(run, pictures, "loop.steps=5")


def test_the_same_pictures_under_another_name_are_the_same(tmp_path, go, pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    run = go("run", "pictures", "loop.steps=2")
    go("./run", "./pictures", "loop.steps=3")
    go(pictures.parent / "run", pictures, "loop.steps=4")
    os.symlink(pictures, tmp_path / "link")
    go(run, tmp_path / "link", "loop.steps=5")
    os.rename(pictures, pictures.with_name("renamed"))
    go(run, "renamed", "loop.steps=6")
    os.rename(tmp_path / "project", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    go("moved/run", "moved/renamed", "loop.steps=7")
    assert record(tmp_path / "moved" / "run")["step"] == 7


def test_a_copy_without_its_times_is_the_same_and_other_pictures_of_the_same_names_are_not(tmp_path, go, pictures):
    run = go(tmp_path / "run", pictures, "loop.steps=2")
    shutil.copytree(pictures, tmp_path / "copy", copy_function=shutil.copyfile)
    go(run, tmp_path / "copy", "loop.steps=3")
    for file in (tmp_path / "copy").rglob("*.bmp"):
        paint(file)
    with pytest.raises(MismatchError, match="some of them are others"):
        go(run, tmp_path / "copy", "loop.steps=4")


def test_a_denoiser_goes_on_with_its_cache_by_whatever_name(tmp_path, fit_diffusion, vae_cache, monkeypatch):
    project = tmp_path / "project"
    shutil.copytree(vae_cache, project / "cache")
    monkeypatch.chdir(project)
    run = fit_diffusion(project / "run", "cache", "loop.steps=1")
    (tmp_path / "link").symlink_to(project / "cache")
    for steps, named in enumerate(("./cache", project / "cache", tmp_path / "link"), 2):
        fit_diffusion("run", named, f"loop.steps={steps}")
        assert record(run)["step"] == steps
    monkeypatch.chdir(tmp_path)
    fit_diffusion("project/run", "project/cache", "loop.steps=5")
    (project / "cache").rename(project / "renamed")
    fit_diffusion("project/run", "project/renamed", "loop.steps=6")
    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    fit_diffusion("run", "renamed", "loop.steps=7")
    steps = [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert record(Path("run"))["step"] == 7 and steps == sorted(steps) and set(steps) == set(range(1, 8)), "it never began anew"
    assert {each["key"] for each in record(Path("run"))["changes"]} == {"loop.steps"}, "another name is no change"


def test_another_cache_under_the_name_of_the_one_it_began_with_is_refused(tmp_path, encode, fit_diffusion, vae_cache, vae_run):
    cache = tmp_path / "cache"
    shutil.copytree(vae_cache, cache)
    run = fit_diffusion(tmp_path / "run", cache, "loop.steps=1")
    cache.rename(tmp_path / "first")
    encode(cache, vae_run, "dataset.count=44")
    before = contents(run)
    with pytest.raises(MismatchError, match=r"had 40 training .*, now it has 44 training") as caught:
        fit_diffusion(run, cache, "loop.steps=2")
    assert caught.value.exit_code == 6 and contents(run) == before
    fit_diffusion(run, tmp_path / "first", "loop.steps=2")
    assert record(run)["step"] == 2


def test_a_run_from_before_pictures_were_kept_goes_on_and_keeps_them(tmp_path, go, pictures):
    run = go(tmp_path / "run", pictures, "loop.steps=2")
    old = record(run)
    del old["pictures"]
    (run / "run.json").write_text(json.dumps(old))
    add(pictures)
    go(run, pictures, "loop.steps=3")
    assert record(run)["pictures"]["train"]["count"] == 17


class Many:
    """So many pictures by their stamps alone."""

    hashed = True

    def __init__(self, count, time=1, other=()):
        self.count, self.time, self.other, self.read = count, time, other, []

    def __len__(self):
        return self.count

    def stamp(self, index):
        return f"{index:07d}.png:100:{self.time + (index in self.other)}"

    def content(self, index):
        self.read.append(index)
        return "edited" if index in self.other else str(index)


def test_of_very_many_pictures_a_few_are_read_and_a_few_kilobytes_kept(tmp_path):
    splits = {"train": Many(100_000), "val": Many(10)}
    before = known_of(splits)
    assert len(splits["train"].read) == sameness.LOOKED and len(json.dumps(before)) < 4000
    again = {"train": Many(100_000), "val": Many(10)}
    assert known_of(again, before) == before and again["train"].read == [], "none is read where nothing has changed"

    def asked(train):
        now = known_of({"train": train, "val": Many(10)}, before)
        return check_same_pictures({"pictures": before}, now, tmp_path, accepted=True)

    assert not asked(Many(100_000, time=2)), "a copy without times"
    assert asked(Many(100_000, other=(77_777,))), "one edited picture"
    assert asked(Many(99_999))
