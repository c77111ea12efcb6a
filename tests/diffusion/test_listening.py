"""What a run listens to: chosen by what its cache knows, said when it is not there, and the same after a stop and on several ranks."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from two_ranks import TINY, assert_alike, together

from ldmctl.cli.app import run as ldmctl
from ldmctl.config.documents import read_config
from ldmctl.errors import ConfigError, DataError, MismatchError, Stopped
from ldmctl.latents import manifest, recipe, stream
from ldmctl.storage import weights

ALL = ["conditions.text=words", "conditions.map=map", "conditions.picture=inpaint", "conditions.text.width=16", "conditions.text.dim=8"]
DROPPED = "conditions.drop={label: 0.2, text: 0.2, map: 0.2, picture: 0}"


@pytest.fixture(scope="module")
def known_cache(tmp_path_factory, encode, vae_run):
    """A cache of mirrored shapes with three captions and a map each. Read only, but for what is prepared in it."""
    return encode(tmp_path_factory.mktemp("known") / "cache", vae_run, "dataset.maps=true", "dataset.captions=3", "flip=true")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_pictures(folder, *, captions=0, maps=0, count=4, value=1):
    """Pictures, the first of which have captions or maps."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(count):
            (folder / split / "masks").mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / split / f"{number}.png")
            if number < captions:
                (folder / split / f"{number}.txt").write_text(f"picture number {number}")
            if number < maps:
                Image.fromarray(np.array([[0] * 8 + [value] * 8] * 16, np.uint8)).save(folder / split / "masks" / f"{number}.png")
        if not maps:
            (folder / split / "masks").rmdir()
    return folder


# -- by what a cache knows -----------------------------------------------------


@pytest.mark.parametrize(("captions", "words"), [(0, None), (1, None), (2, {"type": "words"}), (4, {"type": "words"})])
def test_captions_are_listened_to_where_at_least_half_of_the_pictures_have_one(tmp_path, encode, vae_run, captions, words):
    cache = encode(tmp_path / "cache", vae_run, f"data={write_pictures(tmp_path / 'pictures', captions=captions)}")
    assert recipe.recipe(manifest.read(cache))["conditions"] == {"label": None, "text": words}


def test_labels_and_captions_are_listened_to_together_and_what_is_listened_to_is_said(known_cache, home):
    asked = recipe.recipe(manifest.read(known_cache))["conditions"]
    assert asked == {"label": {"type": "label"}, "text": {"type": "words"}}
    tiny = [
        "denoiser={type: unet, widths: [8], layers: 1, attention: [false], norm_groups: 4, head_dim: 4}",
        "loop.steps=1",
        "loop.batch=4",
    ]
    assert ldmctl(["fit-diffusion", "--latents", str(known_cache), "--device", "cpu", "preview.count=1", "preview.steps=1", *tiny]) == 0
    header = weights.read_header(home / "runs" / "ldm" / "model.safetensors")
    assert header["conditioner"]["type"] == "label" and header["conditions"]["text"]["type"] == "words"
    assert header["left_alone"] == {"label": True, "text": True} and header["unconditional"] is True
    assert header["conditions"]["text"]["context"]["fitted"]["merges"], "its words travel with the model"


def test_items_without_a_caption_or_a_map_train_along(tmp_path, encode, vae_run, fit_diffusion):
    pictures = write_pictures(tmp_path / "pictures", captions=3, maps=2)
    cache = encode(tmp_path / "cache", vae_run, f"data={pictures}")
    run = fit_diffusion(tmp_path / "ldm", cache, *ALL, "conditioner=null", DROPPED, "loop.batch=4")
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in json.loads(line)]
    assert len(losses) == 4 and np.isfinite(losses).all()
    assert weights.read_header(run / "model.safetensors")["left_alone"]["text"] is True


# -- what is not there ---------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["conditions.text=words"], r"conditions.text=words has nothing to listen to: cache has no captions. Take conditions.text=null"),
        (["conditions.map=map"], "conditions.map has nothing to listen to: the pictures of cache have no maps"),
        (["conditions.label=label"], "conditions.label=label has nothing to listen to: cache has no labels"),
        (["conditioner=label"], "conditions.label=label has nothing to listen to"),
        (["conditions.map=inpaint"], "inpaint listens to pictures, so it belongs to conditions.picture, not to conditions.map"),
        (["conditions.txt=words"], "conditions.txt: unknown key. Did you mean 'text'?"),
        (["conditions.text=map"], "map listens to maps, so it belongs to conditions.map, not to conditions.text"),
        (["conditions.drop.text=2"], "conditions.drop.text: input should be less than or equal to 1"),
        (["conditions.drop=0.1"], "conditions.drop"),
        (["conditions=words"], "conditions"),
    ],
)
def test_what_a_cache_lacks_or_a_typing_mistake_is_a_sentence(home, encode, vae_run, asked, said, capsys):
    encode(home / "cache", vae_run, f"data={write_pictures(home / 'pictures')}")
    words = ["loop.steps=1", "loop.batch=4", "denoiser.widths=[8]", "denoiser.norm_groups=4", "denoiser.head_dim=4"]
    assert ldmctl(["fit-diffusion", "--device", "cpu", *words, *asked]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("conditions.map=words", r"words listens to captions, so it belongs to conditions\.text, not to conditions\.map"),
        ("conditions.label=words", r"words listens to captions, so it belongs to conditions\.text, not to conditions\.label"),
        ("conditions.text=label", r"label listens to labels, so it belongs to conditions\.label, not to conditions\.text"),
        ("conditions.picture=map", r"map listens to maps, so it belongs to conditions\.map, not to conditions\.picture"),
    ],
)
def test_what_listens_to_something_else_belongs_elsewhere(fit_diffusion, known_cache, tmp_path, asked, said):
    with pytest.raises(ConfigError, match=said):
        fit_diffusion(tmp_path / "ldm", known_cache, asked)


def test_a_run_that_begins_with_words_of_another_needs_captions_too(fit_diffusion, known_cache, encode, vae_run, tmp_path):
    first = fit_diffusion(tmp_path / "first", known_cache, *ALL[:1], "conditioner=null", "loop.steps=1")
    silent = encode(tmp_path / "silent", vae_run, f"data={write_pictures(tmp_path / 'pictures')}")
    with pytest.raises(ConfigError, match=r"conditions\.text=words has nothing to listen to: .*silent has no captions"):
        fit_diffusion(tmp_path / "second", silent, *ALL[:1], "conditioner=null", f"init={first}", "loop.batch=4")


def test_a_map_with_the_number_of_no_class_is_a_sentence_before_training(fit_diffusion, encode, vae_run, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", maps=4, value=7)
    (pictures / "train" / "masks" / "classes.txt").write_text("ground\nthing\n")
    cache = encode(tmp_path / "cache", vae_run, f"data={pictures}")
    with pytest.raises(DataError, match=r"holds the number 7, and there are 2 classes, from 0 \(ground\) to 1 \(thing\)"):
        fit_diffusion(tmp_path / "ldm", cache, "conditioner=null", "conditions.map=map", "loop.batch=4")
    assert not (tmp_path / "ldm").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda old: np.where(old == 1, 2, old), "have 3 classes (0, 1, 2), and those that this network began with had 2 classes (0, 1)"),
        (lambda old: np.where(old == 1, 200, 30), "have shades, and those that this network began with had 2 classes (0, 1)"),
        (lambda old: np.stack([old] * 3, axis=-1), "have colours"),
    ],
    ids=["another class", "shades", "colours"],
)
def test_maps_that_mean_something_else_by_now_end_the_run_before_it_learns_from_them(
    fit_diffusion, encode, vae_run, tmp_path, changed, said
):
    pictures = write_pictures(tmp_path / "pictures", maps=4)
    cache = encode(tmp_path / "cache", vae_run, f"data={pictures}")
    words = ["conditioner=null", "conditions.map=map", "loop.batch=4"]
    run = fit_diffusion(tmp_path / "ldm", cache, *words, "loop.steps=1")
    before = (run / "state.safetensors").read_bytes()
    for file in pictures.glob("*/masks/*.png"):
        Image.fromarray(changed(np.asarray(Image.open(file))).astype(np.uint8)).save(file)
    with pytest.raises(MismatchError, match=re.escape(said)):
        fit_diffusion(tmp_path / "ldm", cache, *words, "loop.steps=2")
    assert (run / "state.safetensors").read_bytes() == before
    with pytest.raises(MismatchError, match="this network began with"):
        fit_diffusion(tmp_path / "next", cache, *words, f"init={run}")


def test_maps_that_lack_a_class_by_now_are_those_that_the_run_knows(fit_diffusion, encode, vae_run, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", maps=4, value=2)
    cache = encode(tmp_path / "cache", vae_run, f"data={pictures}")
    words = ["conditioner=null", "conditions.map=map", "loop.batch=4"]
    fit_diffusion(tmp_path / "ldm", cache, *words, "loop.steps=1")
    for file in pictures.glob("*/masks/*.png"):
        Image.fromarray((np.asarray(Image.open(file)) > 0).astype(np.uint8)).save(file)
    with pytest.raises(MismatchError, match=r"maps of the pictures have changed since .*ldm was started\. .*--accept-data"):
        fit_diffusion(tmp_path / "ldm", cache, *words, "loop.steps=2")
    run = fit_diffusion(tmp_path / "ldm", cache, *words, "loop.steps=2", accept_data=True)
    header, record = weights.read_header(run / "model.safetensors"), json.loads((run / "run.json").read_text())
    assert "maps" in [each["key"] for each in record["changes"]]
    for file in pictures.glob("*/masks/*.png"):
        os.utime(file, (1e9, 1e9))
    assert fit_diffusion(tmp_path / "ldm", cache, *words, "loop.steps=3") == run, "a copy without its times is no change"
    assert header["conditions"]["map"]["context"]["maps"]["classes"] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("mode", "value", "said"), [("L", 1, "maps (2 classes, 4 of 4 items)"), ("L", 255, "maps (shades, 4 of"), ("RGB", 1, "maps (colours")]
)
def test_what_maps_hold_is_said(encode, vae_run, home, capsys, mode, value, said):
    pictures = write_pictures(home / "pictures", maps=4, value=value)
    for file in pictures.glob("*/masks/*.png"):
        Image.open(file).convert(mode).save(file)
    cache = encode(home / "cache", vae_run, f"data={pictures}")
    tiny = ["--config", str(TINY / "fit-diffusion.yaml"), "loop.batch=4", "loop.steps=1", "preview.count=1", "preview.steps=1"]
    words = ["fit-diffusion", "--latents", str(cache), "conditioner=null", "conditions.map=map", *tiny]
    assert ldmctl(words) == 0 and said in " ".join(capsys.readouterr().err.split())


# -- keys of before ------------------------------------------------------------


def heard(config):
    label = config.conditions.label
    return None if label is None else (label.type, label.dim)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["conditioner=label"], ("label", 8)),  # its keys in the file stay
        (["conditioner.dim=24"], ("label", 24)),
        (["conditioner={type: label, dim: 5}"], ("label", 5)),
        (["conditioner=null"], None),
        (["conditions.label.dim=24"], ("label", 24)),
        (["conditions.label=null"], None),
        (["conditioner=null", "conditions.label=label"], ("label", 128)),
        (["conditioner.dim=3", "conditions.label.dim=4"], ("label", 4)),
    ],
)
def test_the_key_of_before_is_read_as_that_of_today(tiny, asked, found):
    config = tiny("fit-diffusion", *asked)
    assert heard(config) == found and not hasattr(config, "conditioner")


def test_the_environment_may_say_it_too(tiny, monkeypatch):
    monkeypatch.setenv("LDMCTL_OVERRIDES", "conditioner.dim=24")
    assert heard(tiny("fit-diffusion")) == ("label", 24)


def test_a_typing_mistake_under_the_key_of_before_is_named_where_it_is_now(tiny):
    with pytest.raises(ConfigError, match=r"conditions\.label\.dimm: unknown key\. Did you mean 'dim'\?"):
        tiny("fit-diffusion", "conditioner.dimm=8")


def test_a_run_of_before_does_not_begin_to_listen_to_words(known_cache, home):
    """Its config says `conditioner`, and the cache has captions by now."""
    told = yaml.safe_load((TINY / "fit-diffusion.yaml").read_text())
    told.pop("conditions")
    (home / "before.yaml").write_text(yaml.safe_dump(told))
    words = ["fit-diffusion", "--config", "before.yaml", "--latents", str(known_cache), "--out", "run"]
    assert ldmctl([*words, "conditions.text=null"]) == 0
    config = read_config(home / "run")
    before = {key: value for key, value in config.items() if key != "conditions"} | {"conditioner": config["conditions"]["label"]}
    (home / "run" / "config.yaml").write_text(yaml.safe_dump(before))
    assert ldmctl([*words, "loop.steps=6"]) == 0
    assert json.loads((home / "run" / "run.json").read_text())["step"] == 6
    header = weights.read_header(home / "run" / "model.safetensors")
    assert header["conditioner"]["type"] == "label" and "conditions" not in header
    assert ldmctl(["sample", "--run", "run", "-n", "1", "--steps", "1", "--device", "cpu"]) == 0


def test_a_run_that_listens_to_words_and_maps_goes_on_listening(known_cache, home):
    words = ["fit-diffusion", "--config", str(TINY / "fit-diffusion.yaml"), "--latents", str(known_cache), "--out", "run"]
    assert ldmctl([*words, *ALL[:2]]) == 0
    fitted = weights.read_header(home / "run" / "model.safetensors")["conditions"]["text"]["context"]
    assert ldmctl(["fit-diffusion", "--config", "run/config.yaml", "--out", "run", "loop.steps=6"]) == 0
    header = weights.read_header(home / "run" / "model.safetensors")
    assert header["conditions"].keys() == {"text", "map"} and header["conditions"]["text"]["context"] == fitted


# -- the same after a stop, and on several ranks -------------------------------


STEPS = ["loop.steps=6", "loop.save=2", "flip=true", "loop.micro=4", "drop=0.2", DROPPED]


def test_a_stopped_run_with_words_maps_and_holes_ends_bit_for_bit_the_same(fit_diffusion, known_cache, tmp_path, monkeypatch):
    whole = fit_diffusion(tmp_path / "whole", known_cache, *ALL, *STEPS)
    plain = stream.chosen_in

    def terminated(loop, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(loop, step)

    with monkeypatch.context() as patched:
        patched.setattr(stream, "chosen_in", terminated)
        with pytest.raises(Stopped):
            fit_diffusion(tmp_path / "parts", known_cache, *ALL, *STEPS)
    assert 3 <= weights.read_header(tmp_path / "parts" / "state.safetensors")["scalars"]["step"] < 6
    shutil.rmtree(known_cache / "conditions")  # what was prepared is prepared again, and is the same
    parts = fit_diffusion(tmp_path / "parts", known_cache, *ALL, *STEPS)
    for name in ("state.safetensors", "model.safetensors", "samples/000000006.png"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_micro_batches_learn_what_whole_ones_learn(fit_diffusion, known_cache, tmp_path):
    one, other = (
        weights.load(fit_diffusion(tmp_path / str(micro), known_cache, *ALL, *STEPS, f"loop.micro={micro}") / "model.safetensors")[0]
        for micro in (8, 2)
    )
    assert len(one) > 40
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_learn_from_words_maps_and_holes_what_one_learns(fit_diffusion, known_cache, tmp_path, parallel):
    words = [*ALL, DROPPED, "flip=true", "loop.steps=5", "loop.lr=1e-4", "loop.warmup=1", "loop.clip=null", "preview.count=1"]
    shutil.rmtree(known_cache / "conditions", ignore_errors=True)  # the ranks share what is to be prepared
    codes, said = together("fit-diffusion", tmp_path / "both", f"latents={known_cache}", f"machine.parallel={parallel}", *words)
    assert codes == [0, 0], said
    alone = fit_diffusion(tmp_path / "alone", known_cache, *words)
    assert_alike(alone, tmp_path / "both", parallel)


def test_preparing_is_said_and_a_second_run_prepares_nothing(encode, vae_run, fit_diffusion, tmp_path):
    cache = encode(tmp_path / "cache", vae_run, "dataset.maps=true")
    latents = {file.name: file.read_bytes() for file in cache.glob("*.safetensors")}
    fit_diffusion(tmp_path / "one", cache, "conditions.map=map", "loop.steps=1")
    made = {file: file.stat().st_mtime_ns for file in (cache / "conditions").rglob("*.safetensors")}
    assert len(made) == 1
    fit_diffusion(tmp_path / "two", cache, "conditions.map=map", "loop.steps=1")
    assert {file: file.stat().st_mtime_ns for file in (cache / "conditions").rglob("*.safetensors")} == made
    assert {file.name: file.read_bytes() for file in cache.glob("*.safetensors")} == latents, "latents are not touched"
