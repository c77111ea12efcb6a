"""A mask of black and white is no map of classes 0 and 1: what its white is read as is said."""

import numpy as np
import pytest
from PIL import Image

from ldmctl.cli.app import run as ldmctl

HOST = ["steps=1", "count=2", "batch=2", "--device", "cpu", "--precision", "fp32"]
SAID = "255 is read as a pixel of no class. Where white is meant as class 1 (circle), save it as 1."


@pytest.fixture(scope="module")
def by_map(tmp_path_factory, encode, vae_run, fit_diffusion):
    """A run that listens to maps of background, circle and square. Read only."""
    folder = tmp_path_factory.mktemp("by_map")
    cache = encode(folder / "cache", vae_run, "dataset.maps=true")
    return fit_diffusion(folder / "ldm", cache, "conditioner=null", "conditions.map=map", "loop.steps=1")


@pytest.fixture
def told(by_map, tmp_path, monkeypatch, capsys):
    """told("--map", "a.png") -> what sample says of it, on one line."""
    monkeypatch.chdir(tmp_path)

    def go(*words):
        assert ldmctl(["sample", "--run", str(by_map), *HOST, *words]) == 0
        return " ".join(capsys.readouterr().err.split())

    return go


def halves(file, left, right, mode="L"):
    file.parent.mkdir(exist_ok=True)
    array = np.full((16, 16), left, np.uint8)
    array[:, 8:] = right
    Image.fromarray(array).convert(mode).save(file)


def test_a_mask_of_black_and_white_for_a_model_of_classes_is_warned_of(told, tmp_path):
    halves(tmp_path / "mask.png", 0, 255)
    said = told("--map", "mask.png")
    assert f"The map mask.png holds 0 and 255 alone, and this model knows the classes 0 (background) to 2 (square): {SAID}" in said


def test_a_folder_of_masks_is_warned_of_once(told, tmp_path):
    for name, white in (("a", 255), ("b", 255), ("c", 1)):
        halves(tmp_path / "masks" / f"{name}.png", 0, white)
    said = told("--map", "masks")
    assert "The map masks/a.png and 1 more hold 0 and 255 alone" in said and said.count(SAID) == 1
    assert SAID not in told("--map", "masks", "-n", "1", "seed=2", "-o", "other"), "maps that are not asked for"


@pytest.mark.parametrize(
    ("left", "right", "mode", "guidance"), [(1, 255, "L", 1), (0, 1, "L", 1), (0, 0, "L", 1), (0, 255, "1", 1), (0, 255, "L", 0)]
)
def test_other_maps_are_not_warned_of(told, tmp_path, left, right, mode, guidance):
    halves(tmp_path / "map.png", left, right, mode)
    assert SAID not in told("--map", "map.png", "--guidance", str(guidance))


def test_a_map_of_classes_for_a_model_of_shades_is_warned_of(tmp_path, encode, vae_run, fit_diffusion, monkeypatch, capsys):
    for number in range(6):
        halves(tmp_path / "pictures" / f"{number}.png", 40 * number, 200, "RGB")
        halves(tmp_path / "pictures" / "masks" / f"{number}.png", 0, 255)
    cache = encode(tmp_path / "cache", vae_run, f"data={tmp_path / 'pictures'}")
    run = fit_diffusion(tmp_path / "ldm", cache, "conditioner=null", "conditions.map=map", "loop.steps=1", "loop.batch=2")
    monkeypatch.chdir(tmp_path)
    for left, right, warned in ((0, 2, True), (0, 255, False), (0, 128, False)):
        halves(tmp_path / "map.png", left, right)
        assert ldmctl(["sample", "--run", str(run), *HOST, "--map", "map.png", "--out", f"made-{right}"]) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert ("The map map.png holds small numbers, as of classes" in said) == warned
