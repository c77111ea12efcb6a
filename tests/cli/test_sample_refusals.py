"""`ldmctl sample` as people try it: what cannot be ends with a sentence and its code, in a dry run too, and with nothing overwritten."""

import pytest
from PIL import Image

from ldmctl.cli.app import run


def sample(ldm, words):
    few = ["steps=2", "count=2", "machine.device=cpu", "machine.precision=fp32", "--quiet", "batch=2"]
    return run(["sample", "--run", str(ldm), *few, *words.split()])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            "--from out/000001.png --overwrite",
            2,
            "out/000001.png would be replaced or deleted, and sample reads it as out/000001.png (from)",
        ),
        ("--guide classifier guide.file=out/000000.png guide.label=0", 3, "cannot be read as weights"),
        ("--steps 3", 6, "out holds 2 pictures that do not belong to these: 2 with steps=2 instead of 3"),
        ("--out mine", 6, "mine/000000.png is there already and is none of ldmctl's samples"),
        ("--out mine trace=2 --seed 7", 6, "mine/trace.gif is there already and no trace of ldmctl's"),
        ("--out a.png", 6, "a.png is a file; --out wants a folder."),
        ("--out a.png/deeper", 6, "The folder a.png/deeper cannot be made: Not a directory."),
        ("--from a.png --mask points.png", 3, "The mask leaves nothing of the picture to hold on to"),
        ("trace=[9]", 2, "trace names step 9, and there are 2"),
        ("--from a.png --strength 0 trace=[1]", 2, "at strength=0 there are none"),
    ],
)
def test_a_dry_run_refuses_what_the_command_refuses_with_the_same_words(ldm, place, capsys, words, code, said):
    assert sample(ldm, "--out out") == 0
    (place / "mine").mkdir()
    for name in ("000000.png", "trace.gif"):
        (place / "mine" / name).write_bytes(b"mine")
    points = Image.new("L", (16, 16))
    for place_of in range(0, 16, 2):
        for other in range(0, 16, 2):
            points.putpixel((place_of, other), 255)
    points.save("points.png")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    words = words if "--out" in words else f"{words} --out out"
    capsys.readouterr()
    told = []
    for more in (" --dry-run", ""):
        assert sample(ldm, words + more) == code
        told.append(capsys.readouterr().err)
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert said in told[0] and told[0] == told[1]


def test_a_dry_run_of_what_could_go_on_says_its_cost_and_leaves_the_folder(ldm, place, capsys):
    assert sample(ldm, "--out out") == 0
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    for words in ("--out out", "--out out --overwrite --steps 3", "--out new/deep"):
        assert sample(ldm, f"{words} --dry-run") == 0, capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--label 1 --negative 1 --guidance 2", 2, "negative=1 is what is asked for, so going away from it would change nothing"),
        ("--guidance 2 --autoguide AE", 6, "holds an autoencoder, not a denoiser. --autoguide wants a run folder of fit-diffusion"),
    ],
)
def test_guidance_away_from_what_cannot_be_is_a_sentence(ldm, vae_run, place, capsys, words, code, said):
    assert sample(ldm, words.replace("AE", str(vae_run))) == code
    assert said in capsys.readouterr().err and not (place / "samples").exists()


def test_more_labels_than_pictures_are_told_with_what_makes_one_of_each(ldm, place, capsys):
    few = ["--steps", "1", "-n", "2", "--device", "cpu", "--precision", "fp32", "batch=2", "--label", "all"]
    assert run(["sample", "--run", str(ldm), *few]) == 0
    assert "One picture of each of the first 2 of 4 labels (" in (said := capsys.readouterr().err) and "take --each 1" in said


@pytest.mark.parametrize("option", ["--map", "--picture", "--from", "--variations", "--mask", "--run", "--ae", "--autoguide"])
def test_an_empty_name_is_said_to_be_empty_and_is_not_the_folder_one_stands_in(ldm, place, capsys, option):
    more = {"--mask": ["--from", "a.png"], "--autoguide": ["--guidance", "2"]}.get(option, [])
    run_of = [] if option == "--run" else ["--run", str(ldm)]
    key = {"--from": "start", "--variations": "start"}.get(option, option[2:])
    assert run(["sample", *run_of, option, "", *more, "--quiet"]) == 2
    assert f"{key}: the name is empty: name a file or a folder, or leave it away" in " ".join(capsys.readouterr().err.split())
