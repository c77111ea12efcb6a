"""`--again`: a picture from its own file, byte for byte, or a sentence that says why not."""

import json
import shutil

import pytest
import torch
from PIL import Image, PngImagePlugin

from ldmctl import api
from ldmctl.cli.app import run as ldmctl
from ldmctl.errors import ConfigError, DataError, MismatchError
from ldmctl.pictures.png import read_png_text

HOST = ["--device", "cpu", "--precision", "fp32", "-q"]
MAKE = ["sample", "count=3", "steps=3", "batch=4", *HOST]
AGAIN = ["sample", "--device", "cpu", "-q", "--again"]


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion with two snapshots. Read only."""
    words = ["loop.steps=4", "loop.keep.every=2", "loop.ema=0", "loop.lr=1e-2"]
    return fit_diffusion(tmp_path_factory.mktemp("again") / "ldm", vae_cache, *words)


@pytest.fixture
def home(ldm, tmp_path, monkeypatch):
    """The current folder, with a run in runs/ldm."""
    shutil.copytree(ldm, tmp_path / "runs" / "ldm")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(home, name="000001.png", first="samples", second="again"):
    return (home / first / name).read_bytes() == (home / second / name).read_bytes()


def edit(file, change=None, *, sums=True):
    """The same pixels under a text that `change` has changed, which a person may do to every chunk of it."""
    texts = read_png_text(file)
    said = json.loads(texts["ldmctl"])
    new = change(said) if change else said
    info = PngImagePlugin.PngInfo()
    info.add_text("ldmctl", new if isinstance(new, str) else json.dumps(said, sort_keys=True))
    if sums:
        info.add_text("ldmctl-sums", texts["ldmctl-sums"])
    with Image.open(file) as image:
        image.load()
        image.save(file, pnginfo=info)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--label", "red square", "--guidance", "2.5"],
        ["--label", "none"],
        ["--guidance", "0"],
        ["--sampler", "ddpm", "sampler.variance=large", "spacing=leading"],
        ["--sampler", "ddim", "sampler.eta=0.5", "--precision", "bf16"],
        ["--precision", "fp32"],
        ["--run", "runs/ldm@2"],
        ["--seeds", "1,70000"],
        ["--from", "b.png", "--outpaint", "4,0,0,0"],
        ["--variations", "b.png"],
        ["--interpolate", "3", "8"],
    ],
)
def test_a_picture_is_made_again_byte_for_byte(home, words):
    Image.effect_noise((16, 16), 50).convert("RGB").save("b.png")
    count = [] if "--seeds" in words else ["-n", "3"]
    assert ldmctl(["sample", *count, "--steps", "3", "batch=4", "--device", "cpu", "-q", *words]) == 0
    assert ldmctl([*AGAIN, "samples/000001.png"]) == 0
    assert same(home) and sorted(file.name for file in (home / "again").iterdir()) == ["000001.png", "grid.png"]


def test_the_answer_says_whether_it_is_the_same_and_the_grid_names_the_run(home, capsys):
    ldmctl(MAKE)
    assert ldmctl([*AGAIN, "samples/000002.png", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["same"] is True and answer["seeds"] == [2] and answer["made"] == 1
    assert json.loads(read_png_text(home / "samples" / "grid.png")["ldmctl-from"])["run"] == "runs/ldm"
    assert str(home) not in "".join(read_png_text(home / "samples" / "000002.png").values()), "a picture says nothing of places"


def test_from_python_it_is_the_same_function(home):
    ldmctl(MAKE)
    assert api.sample(again="samples/000000.png", out="again", device="cpu")["same"] and same(home, "000000.png")
    with pytest.raises(ConfigError, match="so count, steps cannot be given with it"):
        api.sample(again="samples/000000.png", out="again", count=4, steps=3)


def test_files_that_were_moved_are_named_anew_and_the_bytes_are_the_same(home, capsys):
    for name in ("a.png", "other.png"):
        Image.effect_noise((16, 16), 50).convert("RGB").save(name)
    mask = Image.new("L", (16, 16))
    mask.paste(255, (8, 0, 16, 16))
    mask.save("mask.png")
    assert ldmctl([*MAKE, "--from", "a.png", "--mask", "mask.png", "--guidance", "2", "--autoguide", "runs/ldm@2"]) == 0
    for name in ("a.png", "mask.png"):
        (home / name).rename(home / f"moved-{name}")
    shutil.copytree("runs/ldm", "early")
    moved = ["--from", "moved-a.png", "--mask", "moved-mask.png", "--autoguide", "early@2"]
    assert ldmctl([*AGAIN, "samples/000001.png", *moved]) == 0 and same(home)
    assert ldmctl([*AGAIN, "samples/000001.png", "--from", "other.png", *moved[2:], "--out", "second"]) == 6
    assert "it was made with pictures=" in capsys.readouterr().err
    ldmctl([*MAKE, "--out", "plain"])
    assert ldmctl([*AGAIN, "plain/000001.png", "--from", "other.png", "--out", "third"]) == 2
    assert "was made without --from" in capsys.readouterr().err


@pytest.fixture
def guided(home, towers):
    """samples/ of pictures that were guided by like.png, through features, and by a classifier; and the words that name these files."""
    models = pytest.importorskip("torchvision.models")
    Image.effect_noise((16, 16), 50).convert("RGB").save("like.png")
    torch.save(models.squeezenet1_1(weights=None, num_classes=3).state_dict(), "classes.pth")
    like = f"{{type: perceptual, image: like.png, by: {{type: features, network: squeezenet1_1, weights: {towers['features']}}}}}"
    by_class = "{type: classifier, file: classes.pth, network: squeezenet1_1, label: 1, side: 32}"
    assert ldmctl([*MAKE, "-n", "2", "--size", "24x24", f"guide=[{like}, {by_class}, {{type: colour, colour: red}}]"]) == 0
    return towers["features"]


def test_files_of_guides_that_were_moved_are_named_anew_and_the_bytes_are_the_same(home, capsys, guided):
    assert ldmctl([*AGAIN, "samples/000001.png", "--out", "first"]) == 0 and same(home, second="first")
    stamps = json.loads(read_png_text(home / "samples" / "000001.png")["ldmctl"])["guided_by"]
    for name in ("like.png", "classes.pth", guided):
        (home / name).rename(home / f"moved-{name.rpartition('/')[2]}")
    moved = ["guide.by.weights=moved-squeezenet.pth", "guide.image=moved-like.png", "guide.1.file=moved-classes.pth"]
    for given, name, code, way in (
        ([], guided, 4, "guide.0.by.weights=PLACE"),
        (moved[:1], "like.png", 3, "guide.0.image=PLACE"),
        (moved[:2], "classes.pth", 4, "guide.1.file=PLACE"),
    ):
        assert ldmctl([*AGAIN, "samples/000001.png", *given]) == code
        stamp = stamps["guide.1" in way][:12]
        said = " ".join(capsys.readouterr().err.split())
        assert f"samples/000001.png was made of {name} (hash {stamp}), which is not there. Say where it lies now: {way}." in said
        assert not (home / "again").exists()
    assert ldmctl([*AGAIN, "samples/000001.png", *moved]) == 0 and same(home)


def test_another_file_in_place_of_that_of_a_guide_is_refused(home, capsys, guided):
    Image.effect_noise((16, 16), 90).convert("RGB").save("other.png")
    assert refused(home, capsys, ["samples/000001.png", "guide.image=other.png"], "it was made with guided_by=") == 6
    assert refused(home, capsys, ["samples/000001.png", "guide.image=nowhere.png"], "nowhere.png") == 3
    assert (
        refused(home, capsys, ["samples/000001.png", "guide.scale=2"], "guide.scale names no file that samples/000001.png was guided") == 2
    )
    assert (
        refused(home, capsys, ["samples/000001.png", "guide.2.colour=blue"], "Its files are guide.by.weights, guide.image, guide.file") == 2
    )


def test_a_file_of_which_of_two_guides_was_moved_must_be_said(home, capsys, towers):
    for name in ("a.png", "b.png"):
        Image.effect_noise((16, 16), 50).convert("RGB").save(name)
    like = f"{{type: perceptual, image: %s, by: {{type: features, network: squeezenet1_1, weights: {towers['features']}}}}}"
    assert ldmctl([*MAKE, "-n", "2", "--size", "24x24", f"guide=[{like % 'a.png'}, {like % 'b.png'}]"]) == 0
    (home / "b.png").rename("c.png")
    assert refused(home, capsys, ["samples/000001.png", "guide.image=c.png"], "write guide.0.image or guide.1.image") == 2
    assert ldmctl([*AGAIN, "samples/000001.png", "guide.1.image=c.png"]) == 0 and same(home)


@pytest.mark.parametrize(("gone", "option", "code"), [("a.png", "--from", 3), ("mask.png", "--mask", 3), ("early", "--autoguide", 6)])
def test_a_file_that_is_gone_is_named_with_its_hash_and_the_option_that_names_it_anew(home, capsys, gone, option, code):
    Image.effect_noise((16, 16), 50).convert("RGB").save("a.png")
    mask = Image.new("L", (16, 16))
    mask.paste(255, (8, 0, 16, 16))
    mask.save("mask.png")
    shutil.copytree("runs/ldm", "early")
    assert ldmctl([*MAKE, "--from", "a.png", "--mask", "mask.png", "--guidance", "2", "--autoguide", "early@2"]) == 0
    (home / gone).rename("moved")
    name = "early@2" if gone == "early" else gone
    key = {"--from": "pictures", "--mask": "painted", "--autoguide": "weaker"}[option]
    stamp = json.loads(read_png_text(home / "samples" / "000001.png")["ldmctl"])[key][:12]
    said = f"was made of {name} (hash {stamp}), which is not there. Say where it lies now: {option} PLACE."
    assert refused(home, capsys, ["samples/000001.png"], said) == code
    assert ldmctl([*AGAIN, "samples/000001.png", option, "moved@2" if gone == "early" else "moved"]) == 0 and same(home)


def test_a_run_that_moved_is_found_by_name_beside_it_or_from_another_folder(home, monkeypatch):
    ldmctl(MAKE)
    shutil.move(home / "runs" / "ldm", home / "elsewhere")
    assert ldmctl([*AGAIN, "samples/000001.png", "--run", "elsewhere"]) == 0 and same(home)
    shutil.move(home / "elsewhere", home / "runs" / "renamed")
    assert ldmctl([*AGAIN, "samples/000001.png", "--out", "second"]) == 0 and same(home, second="second"), "runs/ is looked through"
    (home / "deep").mkdir()
    monkeypatch.chdir(home / "deep")
    assert ldmctl([*AGAIN, "../samples/000001.png", "--out", "../third"]) == 0 and same(home, second="third")


def test_a_model_that_was_trained_further_is_found_among_the_snapshots(home, ldm):
    ldmctl([*MAKE, "--run", "runs/ldm@2"])
    (home / "samples" / "grid.png").unlink()
    assert ldmctl([*AGAIN, "samples/000001.png"]) == 0 and same(home)


def test_a_picture_through_another_decoder_is_made_again_through_it(home, fit_ae, vae_run, capsys):
    fit_ae(home / "runs" / "sharper", f"init={vae_run}", "train=decoder", "loop.steps=3", "loop.lr=1e-2", "loop.ema=0.1")
    ldmctl([*MAKE, "--ae", "runs/sharper"])
    assert ldmctl([*AGAIN, "samples/000001.png"]) == 0 and same(home)
    (home / "samples" / "grid.png").unlink()
    assert ldmctl([*AGAIN, "samples/000001.png", "--out", "second"]) == 6
    assert "--ae names the run of fit-ae that has it" in capsys.readouterr().err and not (home / "second").exists()
    assert ldmctl([*AGAIN, "samples/000001.png", "--out", "second", "--ae", "runs/sharper"]) == 0 and same(home, second="second")


def test_a_picture_made_before_there_were_check_sums_is_made_again_to_its_bytes(home):
    ldmctl(MAKE)
    edit(home / "samples" / "000001.png", sums=False)
    assert ldmctl([*AGAIN, "samples/000001.png"]) == 0 and same(home)


def test_a_damaged_picture_is_restored(home, capsys):
    ldmctl(MAKE)
    file = home / "samples" / "000001.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-60])
    assert ldmctl([word for word in AGAIN if word != "-q"] + ["samples/000001.png"]) == 0
    assert (home / "again" / "000001.png").read_bytes() == whole
    assert "has the pixels that samples/000001.png had when it was made; that file has been changed" in capsys.readouterr().err


# -- what cannot be made again -----------------------------------------------------------------


def refused(home, capsys, words, said):
    """The exit code of a command that touches nothing and says so, else what it said."""
    before = {file: file.read_bytes() for file in home.rglob("*") if file.is_file()}
    code, told = ldmctl([*AGAIN, *words]), capsys.readouterr().err
    assert {file: file.read_bytes() for file in home.rglob("*") if file.is_file()} == before and not (home / "again").exists()
    return code if said in told and "Traceback" not in told else told


def test_a_file_from_elsewhere_is_refused(home, capsys):
    ldmctl(MAKE)
    Image.effect_noise((16, 16), 50).save(home / "photo.png")
    (home / "notes.txt").write_text("seed 7")
    for name in ("photo.png", "notes.txt"):
        assert refused(home, capsys, [name], f"{name} does not say how it was made, so it cannot be made again") == 3


def test_a_grid_or_a_trace_is_refused_as_a_picture_of_several(home, capsys):
    ldmctl([*MAKE, "trace=2"])
    for name in ("grid.png", "trace.png"):
        assert refused(home, capsys, [f"samples/{name}"], f"{name} shows many pictures. Name one of them") == 3
    assert refused(home, capsys, ["away.png"], "There is no picture away.png to make again.") == 3
    assert refused(home, capsys, ["samples"], "There is no picture samples to make again.") == 3
    assert (
        refused(
            home, capsys, ["samples/grid.png"], "samples/grid.png shows many pictures. Name one of them, a file that is named by its seed."
        )
        == 3
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said.update(steps=4), "was edited after the picture was made"),
        (lambda said: said.update(seed=9), "was edited after the picture was made"),
        (lambda said: "steps: 3", "is no JSON object, so it was edited"),
        (lambda said: "[1, 2]", "is no JSON object, so it was edited"),
        (lambda said: "[" * 100_000, "is no JSON object, so it was edited"),
    ],
)
def test_a_text_that_was_edited_is_refused(home, capsys, change, said):
    ldmctl(MAKE)
    edit(home / "samples" / "000001.png", change)
    assert refused(home, capsys, ["samples/000001.png"], said) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said.update(model=None), "lacks the seed, the model or settings, so it was edited"),
        (lambda said: said.update(steps=-3), "It was edited, or written by another version of ldmctl."),
        (lambda said: said.update(seed=-3), "It was edited, or written by another version of ldmctl."),
        (lambda said: said.update(spacing="wide"), "It was edited, or written by another version of ldmctl."),
        (lambda said: said.update(label="gray cow"), "There is no label 'class:gray cow'"),
        (lambda said: said.update(halo=3), "cannot be made again here: it was made with halo=3 instead of null"),
        (lambda said: said.update(model="0" * 64), "was made by the model 000000000000, which is not in runs/ldm"),
        (lambda said: said.update(autoencoder="0" * 64), "was decoded by another autoencoder (000000000000) than the one in runs/ldm"),
    ],
)
def test_a_text_without_check_sums_is_refused_where_it_cannot_be_so(home, capsys, change, said):
    ldmctl(MAKE)
    edit(home / "samples" / "000001.png", change, sums=False)
    assert refused(home, capsys, ["samples/000001.png"], said) == (2 if "no label" in said else 6)


def test_a_model_that_is_gone_is_named_with_where_it_was_looked_for(home, capsys):
    ldmctl(MAKE)
    shutil.rmtree(home / "runs")
    assert (
        refused(
            home, capsys, ["samples/000001.png"], "which is not in runs/ldm, nor among the snapshots there: the run was moved, deleted,"
        )
        == 6
    )
    assert refused(home, capsys, ["samples/000001.png", "--run", "samples"], "which is not in samples, nor among") == 6


def test_what_would_change_the_picture_or_write_where_it_lies_is_refused(home, capsys):
    ldmctl(MAKE)
    picture = "samples/000001.png"
    assert (
        refused(home, capsys, [picture, "--steps", "9"], "so steps cannot be given with it: only --run, --ae, --out and the device can.")
        == 2
    )
    assert refused(home, capsys, [picture, "guidance=2"], "so guidance=2 cannot be given with it") == 2
    assert refused(home, capsys, [picture, "--precision", "bf16"], "so precision cannot be given with it") == 2
    assert refused(home, capsys, [picture, "--out", "samples"], "--out samples is where samples/000001.png lies") == 2


def test_another_picture_of_that_seed_is_not_replaced(home, capsys):
    ldmctl(MAKE)
    ldmctl([*MAKE, "--steps", "2", "--out", "again"])
    before = (home / "again" / "000001.png").read_bytes()
    assert ldmctl([*AGAIN, "samples/000001.png"]) == 6
    assert "do not belong to these" in capsys.readouterr().err and (home / "again" / "000001.png").read_bytes() == before


def test_a_picture_whose_pixels_were_painted_over_is_made_as_it_was_and_that_is_said(home, capsys):
    ldmctl(MAKE)
    file = home / "samples" / "000001.png"
    original = file.read_bytes()
    texts, info = read_png_text(file), PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    with Image.open(file) as image:
        image.load()
        image.putpixel((0, 0), (1, 2, 3))
        image.save(file, pnginfo=info)
    assert ldmctl([*AGAIN, "samples/000001.png"]) == 0
    assert "that file has been changed or damaged since" in capsys.readouterr().err
    assert (home / "again" / "000001.png").read_bytes() == original


def test_settings_that_came_later_leave_the_text_as_it_was_where_they_do_nothing(tiny):
    from ldmctl.config.schemas.sample import Sample
    from ldmctl.config.travelling import ALWAYS, BESIDE, travelling

    plain = tiny("sample", "seeds=4-7", "label=all", "npz=true", "machine.device=cpu", "run=elsewhere")
    assert tuple(sorted(travelling(plain))) == tuple(sorted(ALWAYS)), "where things are and how many there are says nothing of pixels"
    assert set(Sample.model_fields) >= {*ALWAYS, *BESIDE}


def test_check_sums_know_shape_and_pixels():
    from ldmctl.pictures.recorded import sums_of

    one = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    assert len({sums_of("a", each) for each in (one, one.reshape(3, 4, 2), one + 1)}) == 3 and sums_of("a", one) != sums_of("b", one)


def test_errors_have_the_codes_of_their_kind(home):
    from ldmctl.pictures.recorded import recorded

    with pytest.raises(DataError):
        recorded(home / "away.png")
    ldmctl(MAKE)
    edit(home / "samples" / "000000.png", lambda said: said.update(steps=4))
    with pytest.raises(MismatchError):
        recorded(home / "samples" / "000000.png")
