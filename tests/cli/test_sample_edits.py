"""What a person sees who starts samples from pictures, masks, guides and other models: a sentence, the exit code, and nothing lost."""

import json

import numpy as np
import pytest
from PIL import Image

from ldmctl import registry
from ldmctl.cli.app import run
from ldmctl.config.base import PluginConfig
from ldmctl.pictures.canvas import listed


def sample(ldm, words):
    few = ["steps=2", "count=2", "machine.device=cpu", "machine.precision=fp32", "--quiet", "batch=2"]
    return run(["sample", "--run", str(ldm), *few, *words.replace("RUN", str(ldm)).split()])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--from a.png --mask other.png", 3, "other.png is 20x20 pixels, the picture 16x16"),
        ("--from a.png --mask text.png", 3, "text.png cannot be read as a picture"),
        ("--from a.png --mask black.png", 3, "black everywhere"),
        ("--from a.png --mask white.png", 3, "white everywhere"),
        ("--from text.png", 3, "text.png cannot be read as a picture"),
        ("--from a.png --strength 1.2", 2, "less than or equal to 1 (got 1.2)"),
        ("--from a.png --strength nan", 2, "a finite number"),
        ("--mask half.png", 2, "needs a picture to start from: --from IMAGE"),
        ("--guide colour", 2, "guide.0.colour: is missing"),
        ("--guide colour --guide perceptual guide.scale=3", 2, "Give several as a list"),
        ("--guide nobody", 4, "No guide is called 'nobody'"),
        ("--guidance 2 --negative nothing", 2, "There is no label 'nothing'"),
        ("--autoguide RUN", 2, "autoguide does nothing at guidance=1"),
        ("--guidance 2 --autoguide nowhere", 6, "There is no run folder nowhere of a weaker model. --autoguide names"),
        ("--ae nowhere", 6, "There is no run folder nowhere with a decoder. --ae names"),
        ("--ae RUN", 6, "holds a denoiser, not an autoencoder. --ae wants a run folder of fit-ae."),
        ("--interpolate 1 2 --seed 3", 2, "leave seed away"),
        ("--interpolate 3 3", 2, "interpolate goes from one seed to another, and both are 3"),
        ("--from a.png --outpaint 0,0,0,0", 2, "paints nothing"),
        ("--variations a.png --from a.png", 2, "leave one of them away"),
        ("spacing=[5,2,3]", 2, "goes from 2 to 3"),
        ("--from a.png --mask half.png painting.repeats=9", 2, "painting.repeats belongs to painting.method=repaint"),
        ("--from a.png --mask half.png painting.method=blend painting.repeats=9", 2, "and the method is blend"),
        ("--from a.png --mask half.png painting.method=repaint --sampler lms", 2, "builds a step on those before it"),
    ],
)
def test_what_does_not_fit_is_told_with_its_code_and_nothing_is_overwritten(ldm, place, capsys, words, code, said):
    (place / "out").mkdir()
    (place / "out" / "000000.png").write_bytes(b"mine")
    assert sample(ldm, f"{words} --out out") == code
    assert said in capsys.readouterr().err
    assert [file.read_bytes() for file in (place / "out").iterdir()] == [b"mine"]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("out/000001.png", "--from out/000001.png -n 4"),
        ("out/000000.png", "--from a.png --mask link.png"),
        (
            "out/000001.png",
            "--guide perceptual guide.image=out/../out/000001.png guide.by.type=features guide.by.network=squeezenet1_1 guide.by.weights=TOWER --size 24x24",
        ),
        ("out/001000/001001.png", "--from out/001000 --seeds 1001"),
        ("out/grid.png", "--from out/grid.png --seeds 7,8"),
        ("out/000001.png", "--from out/000001.png --seeds 7"),
    ],
)
def test_a_picture_that_others_are_made_by_is_neither_replaced_nor_deleted(ldm, place, capsys, towers, file, words):
    assert sample(ldm, "--out out") == 0
    (place / file).parent.mkdir(exist_ok=True)
    if not (place / file).exists():
        (place / "out" / "000001.png").rename(place / file)
    (place / "link.png").symlink_to(place / file)
    before = {path: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()}
    words = words.replace("TOWER", towers["features"])
    few = ["--steps", "2", "--device", "cpu", "--quiet", "batch=2", "--out", "out", "--overwrite"]
    assert run(["sample", "--run", str(ldm), *few, *words.replace("RUN", str(ldm)).split()]) == 2
    assert f"{file} would be replaced or deleted, and sample reads it as" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()} == before


def test_a_guide_that_needs_larger_pictures_says_so_before_anything_is_made(ldm, place, capsys, towers):
    words = (
        f"--guide perceptual guide.image=a.png guide.by.type=features guide.by.network=squeezenet1_1 guide.by.weights={towers['features']}"
    )
    for more in ("", " --dry-run"):
        assert sample(ldm, words + more) == 3
        said = capsys.readouterr().err
        assert "The guide perceptual cannot compare these pictures: features-squeezenet1_1 needs pictures of at least 17 x 17" in said
        assert "Take a larger --size" in said and "image.size" not in said and not (place / "samples").exists()


def test_a_folder_may_be_called_as_the_colour_of_a_guide(ldm, place, capsys):
    few = ["--steps", "2", "--device", "cpu", "--quiet", "-n", "1", "--out", "red"]
    for more in ([], ["--overwrite"]):
        assert run(["sample", "--run", str(ldm), *few, *more, "--guide", "colour", "guide.colour=red"]) == 0, capsys.readouterr().err


def test_a_guide_whose_loss_is_no_number_is_named_with_its_code_and_nothing_is_overwritten(ldm, place, capsys):
    class Nothing:
        class Config(PluginConfig):
            pass

        def __init__(self, config, **context):
            pass

        def loss(self, image):
            return image.mean((1, 2, 3)) * float("nan")

    registry.register("guide", "nothing", Nothing)
    (place / "out").mkdir()
    (place / "out" / "000000.png").write_bytes(b"mine")
    assert sample(ldm, "--guide nothing --out out --seed 1") == 4
    assert "The guide 'nothing' from" in (said := capsys.readouterr().err) and "loss is not finite at sigma / alpha" in said
    assert [file.read_bytes() for file in (place / "out").iterdir()] == [b"mine"]


@pytest.mark.parametrize("command", ["--strength 0", "--strength 0 --mask half.png"])
def test_at_strength_0_the_picture_passes_the_autoencoder_and_the_network_is_not_asked(ldm, place, capsys, command):
    assert sample(ldm, f"--from a.png {command} --out out --json") == 0
    assert json.loads(capsys.readouterr().out)["evaluations"] == 0
    first, second = (np.asarray(Image.open(place / "out" / f"{seed:06d}.png")) for seed in (0, 1))
    assert np.array_equal(first, second), "whatever the seed"


@pytest.mark.parametrize(
    "words",
    [
        "--from a.png --strength 0.5",
        "--variations a.png",
        "--from a.png --mask half.png",
        "--from a.png --outpaint 2,2,2,2",
        "--guide colour guide.colour=red guide.scale=3",
        "--interpolate 1 2",
        "--size 24x12 batch=4",
        "--guidance 2 guiding.interval=[0.1,4]",
        "--trace",
    ],
)
def test_every_way_in_makes_pictures_and_finds_them_made_the_next_time(ldm, place, words):
    assert sample(ldm, words) == 0
    files = {file: file.stat().st_mtime_ns for file in (place / "samples").glob("0*.png")}
    assert len(files) == 2
    assert sample(ldm, words) == 0
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_own_samples_are_started_from_without_their_sheets_and_with_their_shelves(ldm, place):
    assert sample(ldm, "--out made trace=2") == 0
    (place / "made" / "001000").mkdir()
    (place / "made" / "000001.png").rename(place / "made" / "001000" / "001001.png")
    assert [file.name for file in listed(place / "made")] == ["000000.png", "001001.png"]


def test_a_trace_has_as_many_columns_as_it_is_told(ldm, place):
    assert sample(ldm, "--steps 12 --trace trace=2") == 0
    with Image.open("samples/trace.png") as strip:
        assert strip.width == 3 * 68, "two evaluations and the sample"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--from nosuch.png", 3, "There is no picture or folder nosuch.png"),
        ("--from a.png --mask black.png", 3, "black everywhere"),
        ("--guidance 2 --autoguide nowhere", 6, "nowhere"),
        ("--guidance 2 guiding.method=apg guiding.momentum=-0.5 --sampler adaptive", 2, "takes each step once"),
        ("--guide classifier guide.file=nowhere.pth guide.label=0", 4, "nowhere.pth"),
        ("--guide perceptual guide.image=text.png guide.by.network=vgg16", 2, "perceptual 'lpips' cannot be made"),
        ("--map nowhere", 2, "This model was trained without maps"),
        ("--picture nowhere", 2, "This model was trained without pictures"),
    ],
)
def test_a_dry_run_looks_at_what_it_is_given(ldm, place, capsys, words, code, said):
    assert sample(ldm, f"{words} --dry-run") == code
    assert said in capsys.readouterr().err and not (place / "samples").exists()


@pytest.mark.parametrize(
    ("words", "environment", "strength"),
    [
        ("", "", 0.75),
        ("--strength 0.3", "", 0.3),
        ("strength=0.3", "", 0.3),
        ("", "strength=0.3", 0.3),
        ("strength=0.2", "strength=0.3", 0.2),
    ],
)
def test_variations_take_the_strength_that_is_named_wherever(ldm, place, capsys, monkeypatch, words, environment, strength):
    monkeypatch.setenv("LDMCTL_OVERRIDES", environment)
    assert sample(ldm, f"--variations a.png {words} --dry-run") == 0
    assert f"strength: {strength}\n" in capsys.readouterr().out


def test_variations_are_pictures_from_it_at_a_strength_of_three_quarters(ldm, place, capsys):
    for words in ("--variations a.png --out varied", "--from a.png --strength 0.75 --out begun"):
        assert sample(ldm, words) == 0, capsys.readouterr().err
    varied, begun = (sorted((place / folder).glob("0*.png")) for folder in ("varied", "begun"))
    assert varied and [Image.open(file).tobytes() for file in varied] == [Image.open(file).tobytes() for file in begun]


def test_a_dry_run_counts_what_it_would_cost(ldm, place, capsys):
    assert sample(ldm, "--from a.png --mask half.png --guidance 2 --dry-run") == 0
    said = capsys.readouterr().out
    assert "# forwards: 8\n" in said and "# backwards: 4\n" in said
