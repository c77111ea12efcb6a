"""A map, or a picture to follow, of another shape than the pictures that are made is cut to fit, and that is said once."""

import numpy as np
import pytest
from PIL import Image

from ldmctl.cli.app import run as ldmctl

HOST = ["steps=1", "batch=2", "--device", "cpu", "--precision", "fp32"]
CUT = "the middle of it is used, as large as fits, and the rest is cut off."


@pytest.fixture(scope="module")
def models(tmp_path_factory, encode, vae_run, fit_diffusion):
    """A run that listens to maps, and one that listens to small pictures; of 16x16 pixels. Read only."""
    folder = tmp_path_factory.mktemp("cropped")
    cache = encode(folder / "cache", vae_run, "dataset.maps=true")
    keys = {"map": "conditions.map=map", "picture": "conditions.picture={type: lowres, factor: 2}"}
    return {slot: fit_diffusion(folder / slot, cache, "conditioner=null", key, "loop.steps=1") for slot, key in keys.items()}


@pytest.fixture
def told(models, tmp_path, monkeypatch, capsys):
    """told("map", "a.png", *words) -> what sample says of it, on one line."""
    monkeypatch.chdir(tmp_path)

    def go(slot, given, *words):
        capsys.readouterr()
        assert ldmctl(["sample", "--run", str(models[slot]), *HOST, f"--{slot}", given, "--out", "made", "--overwrite", *words]) == 0
        return " ".join(capsys.readouterr().err.split())

    return go


def draw(file, size, turned=False):
    file.parent.mkdir(exist_ok=True)
    image = Image.fromarray(np.ones((size[1], size[0]), np.uint8))
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    image.save(file, exif=exif)


@pytest.mark.parametrize("slot", ["map", "picture"])
@pytest.mark.parametrize(
    ("size", "words", "cut"),
    [
        ((16, 16), [], ""),
        ((64, 64), [], ""),
        ((5, 5), [], ""),
        ((24, 16), [], "24x16 pixels, another shape than the pictures of 16x16"),
        ((16, 40), [], "16x40 pixels, another shape than the pictures of 16x16"),
        ((33, 32), [], ""),
        ((24, 16), ["-n", "2", "--guidance", "0"], ""),
        ((16, 16), ["--size", "16x8"], "16x16 pixels, another shape than the pictures of 16x8"),
        ((32, 16), ["--size", "16x8"], ""),
    ],
)
def test_one_of_another_shape_is_said_and_one_of_another_size_alone_is_not(told, tmp_path, slot, size, words, cut):
    draw(tmp_path / "a.png", size)
    said = told(slot, "a.png", *(words if "-n" in words else ["-n", "2", *words]))
    assert (f"The {slot} a.png has {cut}: {CUT}" in said) if cut else CUT not in said


def test_a_folder_is_said_once_with_how_many_of_those_that_are_asked_for(told, tmp_path):
    for name, size in (("a", (16, 16)), ("b", (24, 16)), ("c", (16, 24))):
        draw(tmp_path / "maps" / f"{name}.png", size)
    said = told("map", "maps", "-n", "6")
    assert (
        f"The map maps/b.png (and 1 more) has 24x16 pixels, another shape than the pictures of 16x16: {CUT}" in said
        and said.count(CUT) == 1
    )
    assert CUT not in told("map", "maps", "-n", "1")


@pytest.mark.parametrize(("size", "cut"), [((8, 16), False), ((16, 8), True)])
def test_a_map_has_the_shape_that_one_sees(told, tmp_path, size, cut):
    draw(tmp_path / "a.png", size, turned=True)
    assert (CUT in told("map", "a.png", "-n", "1", "--size", "16x8")) == cut
