"""Maps and pictures that samples are made by: prepared as in training, kept to their seeds, and refused where the model cannot use them."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl import api, registry
from ldmctl.cli.app import run as ldmctl
from ldmctl.config.schemas.shared import Image as Section
from ldmctl.diffusion.shown import in_turn, map_of
from ldmctl.errors import DataError
from ldmctl.pictures.canvas import listed
from ldmctl.pictures.loading import open_pictures
from ldmctl.pictures.maps import map_of as map_of_item
from ldmctl.pictures.png import read_png_text
from ldmctl.stages.sample import sample as stage
from ldmctl.storage import weights

LIVELY = ["conditioner=null", "loop.lr=3e-2", "loop.ema=0", "loop.steps=12"]
HOST = ["--steps", "3", "batch=4", "--device", "cpu", "--precision", "fp32", "-q"]


@pytest.fixture(scope="module")
def mapped_cache(tmp_path_factory, encode, vae_run):
    """Shapes with maps of background, circle and square. Read only."""
    return encode(tmp_path_factory.mktemp("mapped") / "cache", vae_run, "dataset.maps=true")


@pytest.fixture(scope="module")
def by_map(tmp_path_factory, fit_diffusion, mapped_cache):
    """A run that listens to maps. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("by_map") / "ldm", mapped_cache, "conditions.map=map", *LIVELY)


@pytest.fixture(scope="module")
def by_small(tmp_path_factory, fit_diffusion, mapped_cache):
    """A run that listens to small pictures. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("by_small") / "ldm", mapped_cache, "conditions.picture={type: lowres, factor: 2}", *LIVELY)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sample(tiny, quiet, tmp_path):
    """sample(run, "count=4", out="a") -> {seed: bytes of the picture}."""

    def go(run, *overrides, out="samples"):
        words = [f"run={run}", "steps=3", "batch=4", "count=4", "machine.device=cpu", "machine.precision=fp32", *overrides]
        stage(tiny("sample", *words), tmp_path / out, console=quiet)
        return {int(file.stem): file.read_bytes() for file in (tmp_path / out).glob("0*.png")}

    return go


def halves(file, left=1, right=0, size=16):
    """A label map of two halves."""
    array = np.full((size, size), left, np.uint8)
    array[:, size // 2 :] = right
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(file)
    return file


def photo(file, seed=0, size=(8, 8)):
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(file)
    return file


def pixels(whole, folder):
    """Of each picture, without its text."""
    return {seed: Image.open(folder / f"{seed:06d}.png").tobytes() for seed in whole}


# -- maps ----------------------------------------------------------------------


def test_a_map_is_prepared_for_samples_as_it_was_for_training(tiny, tmp_path):
    config = tiny("fit-ae", "dataset.maps=true")
    pictures = open_pictures(config, "train")
    plugin = registry.load("conditioner", "map")
    listens = plugin(plugin.Config(type="map"), maps={"classes": pictures.dataset.map_classes, "channels": 1}, factor=2, size=(8, 8))
    for item in range(4):
        Image.fromarray(pictures.dataset[item].map).save(tmp_path / f"{item}.png")
        shown = map_of(tmp_path / f"{item}.png", config.image, (16, 16), listens)
        assert torch.equal(shown, map_of_item(pictures, item)) and shown.unique().numel() == 2


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (48, 32), (5, 7)])
def test_a_map_of_another_size_covers_the_picture_and_no_class_is_invented(tmp_path, size):
    plugin = registry.load("conditioner", "map")
    listens = plugin(plugin.Config(type="map"), maps={"classes": ["a", "b", "c"], "channels": 1}, factor=2, size=(8, 8))
    numbers = np.where(np.arange(size[0])[None, :] < size[0] / 2, 0, 2) + np.zeros((size[1], 1))
    Image.fromarray(numbers.astype(np.uint8)).save(tmp_path / "map.png")
    shown = map_of(tmp_path / "map.png", Section(size=16), (16, 16), listens)
    assert shown.shape == (1, 16, 16) and set(shown.unique().tolist()) == {0, 2}
    assert (shown[..., :6] == 0).all() and (shown[..., 10:] == 2).all()


def test_maps_change_the_picture_and_a_folder_of_them_is_taken_in_turn_by_seed(by_map, sample, tmp_path):
    first, second = halves(tmp_path / "maps" / "a.png", 1, 0), halves(tmp_path / "maps" / "b.png", 0, 2)
    free = sample(by_map, out="free")
    one, other = (sample(by_map, f"map={file}", out=file.stem) for file in (first, second))
    plain, a, b = (pixels(each, tmp_path / name) for each, name in ((free, "free"), (one, "a"), (other, "b")))
    assert len({plain[0], a[0], b[0]}) == 3
    turns = pixels(sample(by_map, f"map={tmp_path / 'maps'}", out="turns"), tmp_path / "turns")
    assert turns == {0: a[0], 1: b[1], 2: a[2], 3: b[3]}
    late = sample(by_map, f"map={tmp_path / 'maps'}", "seed=3", "count=1", out="late")
    assert pixels(late, tmp_path / "late") == {3: b[3]}, "by its seed, not by its place in the command"


def test_guidance_0_ignores_maps_and_small_pictures(by_map, by_small, sample, tmp_path):
    given = {by_map: f"map={halves(tmp_path / 'map.png')}", by_small: f"picture={photo(tmp_path / 'small.png')}"}
    for number, (run, word) in enumerate(given.items()):
        none, shown = (sample(run, *words, "guidance=0", out=f"{number}{len(words)}") for words in ([], [word]))
        assert pixels(none, tmp_path / f"{number}0") == pixels(shown, tmp_path / f"{number}1")
        plain, more = (sample(run, word, f"guidance={guidance}", out=f"{number}-{guidance}") for guidance in (1, 2))
        assert pixels(plain, tmp_path / f"{number}-1") != pixels(more, tmp_path / f"{number}-2")


def test_a_map_with_a_class_that_the_model_does_not_know_is_a_sentence(by_map, home, capsys):
    halves(home / "map.png", 7, 0)
    assert ldmctl(["sample", "--run", str(by_map), "--map", "map.png", *HOST]) == DataError.exit_code
    said = " ".join(capsys.readouterr().err.split())
    assert "map.png has class 7, and this model knows 3 classes, counted from 0: background, circle, square" in said
    assert "Pixels of no class have 255" in said


@pytest.mark.parametrize("name", ["nothing.png", "empty", "text.png"])
def test_a_map_that_is_no_picture_is_a_sentence(by_map, home, name, capsys):
    (home / "empty").mkdir()
    (home / "text.png").write_text("no picture")
    assert ldmctl(["sample", "--run", str(by_map), "--map", name, *HOST]) == DataError.exit_code
    said = capsys.readouterr().err
    assert name in said and "Traceback" not in said and "start from" not in said
    assert name == "text.png" or "to take a map from" in said
    assert not list(home.glob("samples/*.png"))


def test_a_dry_run_looks_at_maps_and_pictures_too(by_map, by_small, home, capsys):
    halves(home / "m.png", left=7)
    for words, said in (
        ([by_map, "--map", "nowhere"], "There is no picture or folder nowhere to take a map from"),
        ([by_map, "--map", "m.png"], "m.png has class 7"),
        ([by_small, "--picture", "nowhere"], "There is no picture or folder nowhere to follow"),
    ):
        assert ldmctl(["sample", "--run", *map(str, words), *HOST, "--dry-run"]) == 3
        assert said in capsys.readouterr().err


def test_a_photograph_is_no_label_map(by_map, home, capsys):
    photo(home / "photo.png")
    assert ldmctl(["sample", "--run", str(by_map), "--map", "photo.png", *HOST]) == DataError.exit_code
    assert "its pixels are colours and no numbers of classes" in " ".join(capsys.readouterr().err.split())


def test_again_makes_a_picture_of_a_map_wherever_the_map_lies_now(by_map, home, capsys):
    halves(home / "map.png")
    assert ldmctl(["sample", "--run", str(by_map), "--map", "map.png", "-n", "2", *HOST]) == 0
    said = json.loads(read_png_text(home / "samples" / "000001.png")["ldmctl"])
    assert said["map"] == "map.png" and len(said["mapped"]) >= 12
    shutil.move(home / "map.png", home / "elsewhere.png")
    again = ["sample", "--run", str(by_map), "--again", "samples/000001.png", "--device", "cpu", "-q"]
    assert ldmctl(again) != 0 and "map.png" in capsys.readouterr().err
    assert ldmctl([*again, "--map", "elsewhere.png"]) == 0
    assert (home / "samples" / "000001.png").read_bytes() == (home / "again" / "000001.png").read_bytes()
    halves(home / "elsewhere.png", 0, 2)
    assert ldmctl([*again, "--map", "elsewhere.png", "-o", "other"]) != 0, "another map makes another picture"


@pytest.mark.parametrize("key", ["map", "picture"])
def test_a_folder_is_looked_through_once_for_all_batches_of_a_command(by_map, by_small, tmp_path, monkeypatch, key):
    run, make = (by_map, halves) if key == "map" else (by_small, photo)
    for name in ("a", "b"):
        make(tmp_path / "shown" / f"{name}.png")
    looks, model = [], api.load(run, device="cpu", precision="fp32")
    monkeypatch.setattr("ldmctl.diffusion.shown.listed", lambda *given: looks.append(given) or listed(*given))
    for _ in range(2):
        model.sample(3, steps=1, batch=1, **{key: tmp_path / "shown"})
    assert len(looks) == 2, "once in each call, which may find other files"


def test_a_loaded_model_takes_maps_and_pictures(by_map, by_small, sample, tmp_path):
    for number, (run, key, file) in enumerate(
        [(by_map, "map", halves(tmp_path / "m.png")), (by_small, "picture", photo(tmp_path / "p.png"))]
    ):
        files = pixels(sample(run, f"{key}={file}", "count=2", out=str(number)), tmp_path / str(number))
        made = api.load(run, device="cpu", precision="fp32").sample(2, steps=3, batch=4, **{key: file}).images
        assert [Image.fromarray(each.permute(1, 2, 0).squeeze().numpy()).tobytes() for each in made] == [files[0], files[1]]


def test_words_for_a_model_of_maps_alone_are_a_sentence_that_names_captions(by_map, home, capsys):
    assert ldmctl(["sample", "--run", str(by_map), "--negative", "red", "--guidance", "2", *HOST]) == 2
    assert "needs a model trained with labels or captions" in " ".join(capsys.readouterr().err.split())


# -- pictures ------------------------------------------------------------------


def test_small_pictures_of_any_size_are_taken(by_small, sample, tmp_path):
    exact = sample(by_small, f"picture={photo(tmp_path / 'a.png')}", out="a")
    other = sample(by_small, f"picture={photo(tmp_path / 'b.png', 1)}", out="b")
    large = sample(by_small, f"picture={photo(tmp_path / 'c.png', 2, (40, 20))}", out="c")
    assert len({pixels(each, tmp_path / name)[0] for each, name in ((exact, "a"), (other, "b"), (large, "c"))}) == 3


def test_a_model_of_small_pictures_has_never_gone_without_where_nothing_is_dropped(fit_diffusion, mapped_cache, tmp_path):
    words = ["conditioner=null", "drop=0", "loop.steps=1"]
    small = fit_diffusion(tmp_path / "small", mapped_cache, "conditions.picture={type: lowres, factor: 2}", *words)
    holes = fit_diffusion(tmp_path / "holes", mapped_cache, "conditions.picture=inpaint", *words)
    free = [weights.read_header(run / "model.safetensors")["unconditional"] for run in (small, holes)]
    assert free == [False, True], "most holes hide everything, a small picture is always there"


def test_a_model_of_holes_continues_a_picture_by_its_condition(fit_diffusion, mapped_cache, home, capsys):
    fit_diffusion(home / "ldm", mapped_cache, "conditions.picture=inpaint", *LIVELY)
    photo(home / "photo.png", size=(16, 16))
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 8:] = 255
    Image.fromarray(mask).save(home / "mask.png")
    told = ["sample", "--run", "ldm", "-n", "2", *HOST]
    assert ldmctl([*told, "--from", "photo.png", "--mask", "mask.png"]) == 0
    said = json.loads(read_png_text(home / "samples" / "000000.png")["ldmctl"])
    assert said["painting"]["method"] == "condition"
    picture = [np.asarray(Image.open(home / name).convert("RGB")).astype(int) for name in ("photo.png", "samples/000000.png")]
    assert np.abs(picture[0][:, :4] - picture[1][:, :4]).max() <= 1, "what is kept is the person's own"
    assert ldmctl([*told, "-o", "free"]) == 0
    assert ldmctl([*told, "--picture", "photo.png", "-o", "none"]) == 2
    assert "give the picture as --from, with --mask" in " ".join(capsys.readouterr().err.split())


def test_the_files_of_sub_folders_are_taken_where_a_folder_has_none_of_its_own(tmp_path):
    for name in ("val/1.png", "train/0.png", ".hidden/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert [str(file.relative_to(tmp_path)) for file in in_turn(str(tmp_path), [0, 1, 2], "to look at", {})] == [
        "train/0.png",
        "val/1.png",
        "train/0.png",
    ]
    Image.new("L", (8, 8)).save(tmp_path / "own.png")
    assert in_turn(str(tmp_path), [5], "to look at", {}) == [tmp_path / "own.png"]
