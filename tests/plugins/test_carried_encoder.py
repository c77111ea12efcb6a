"""The text encoder of a run travels by name and hash, or as a copy in its folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from encoders import save

from ldmctl.cli.app import run as main
from ldmctl.diffusion.carried import FOLDER
from ldmctl.diffusion.model import open_model
from ldmctl.errors import ConfigError, MissingError
from ldmctl.training.engine import Engine

pytest.importorskip("transformers", reason="the extra `text` is not installed")
HOST = Engine(torch.device("cpu"), torch.float32)
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(autouse=True)
def nothing_downloaded(monkeypatch):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    monkeypatch.delenv("LDMCTL_WEIGHTS_DIR", raising=False)


@pytest.fixture(scope="module")
def words():
    """The keys of a denoiser that hears captions by the encoder in a folder."""
    text = "width: 24, dim: 16, type: text, encoder"
    return lambda encoder: [f"conditions.text={{{text}: {encoder}}}", "conditions.label=null", "loop.steps=2", "drop=0.1"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save("bert", tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture
def trained(tmp_path, fit_diffusion, vae_cache, words, bert):
    """trained("conditions.embed_text=true") -> a run whose encoder lies in tmp_path/encoder, beside things that it does not need."""
    encoder = Path(shutil.copytree(bert, tmp_path / "encoder"))
    (encoder / "README.md").write_text("what it is")
    (encoder / "onnx").mkdir()
    shutil.copytree(vae_cache, tmp_path / "cache")
    return lambda *more, **options: fit_diffusion(tmp_path / "ldm", tmp_path / "cache", *words(encoder), *more, **options)


def drawn(run, **keys):
    """The picture of seed 0."""
    return open_model(str(run), HOST, tile=None).sample(1, steps=2, **keys).images


def test_a_folder_with_its_encoder_makes_pictures_of_words_alone(trained, tmp_path):
    run = trained("conditions.embed_text=true")
    assert sorted(file.name for file in (run / FOLDER).iterdir()) == FILES
    before = drawn(run, prompt="a red circle")
    shutil.rmtree(tmp_path / "encoder")
    shutil.move(run, tmp_path / "elsewhere" / "ldm")
    far = tmp_path / "elsewhere" / "ldm"
    assert torch.equal(drawn(far, prompt="a red circle"), before)
    assert not torch.equal(drawn(far, prompt="a blue star"), before)
    drawn(f"{far}@best", prompt="a red circle")  # snapshots lie one folder deeper


def test_without_its_encoder_a_model_makes_pictures_of_nothing_and_says_how_it_would_of_words(trained, tmp_path):
    run = trained()
    shutil.move(tmp_path / "encoder", tmp_path / "away")
    drawn(run)
    for keys in ({"prompt": "red"}, {"negative": "red", "guidance": 2.0}):
        with pytest.raises(MissingError) as missing:
            drawn(run, **keys)
        assert missing.value.exit_code == 4
        for way in (str(tmp_path / "encoder"), "LDMCTL_WEIGHTS_DIR", "--embed-text", "sample without --prompt"):
            assert way in str(missing.value)
        assert "conditions.text=words" not in str(missing.value), "a model that is there learns no other words"
    for words in (["--prompt", "red"], ["--negative", "red", "--guidance", "2"]):
        for also in ([], ["--dry-run"]):
            assert main(["sample", "--run", str(run), "--out", str(tmp_path / "made"), "--device", "cpu", *words, *also]) == 4
    assert not (tmp_path / "made").exists(), "before anything is made"
    shutil.copytree(tmp_path / "away", run / FOLDER)
    drawn(run, prompt="red")


def test_a_copy_is_made_once_and_one_that_is_not_whole_is_made_again(trained, tmp_path):
    copy = trained("conditions.embed_text=true") / FOLDER
    then = {file.name: file.stat().st_mtime_ns for file in copy.iterdir()}
    trained("conditions.embed_text=true", "loop.steps=3")
    assert {file.name: file.stat().st_mtime_ns for file in copy.iterdir()} == then
    (copy / "model.safetensors").unlink()
    trained("conditions.embed_text=true", "loop.steps=4")
    assert (copy / "model.safetensors").read_bytes() == (tmp_path / "encoder" / "model.safetensors").read_bytes()


def test_a_finished_run_gets_its_copy_later_and_overwriting_it_takes_the_copy_away(trained):
    run = trained()
    assert not (run / FOLDER).exists()
    trained("conditions.embed_text=true")
    assert len(list((run / FOLDER).iterdir())) == len(FILES)
    trained(overwrite=True)
    assert not list((run / FOLDER).iterdir())


def test_a_run_resumes_without_its_encoder_while_all_captions_are_prepared_or_a_copy_is_there(trained, tmp_path):
    run = trained()
    shutil.move(tmp_path / "encoder", tmp_path / "away")
    trained("loop.steps=3")
    shutil.rmtree(tmp_path / "cache" / "conditions")
    with pytest.raises(MissingError, match="--embed-text"):
        trained("loop.steps=4")
    shutil.copytree(tmp_path / "away", run / FOLDER)
    trained("loop.steps=4")
    assert list((tmp_path / "cache" / "conditions").glob("text-*/*.safetensors"))


def test_the_encoder_is_let_go_of_when_captions_are_prepared(trained):
    from ldmctl_plugins.conditioners._reading import reader

    reader.cache_clear()
    trained()
    assert reader.cache_info().currsize == 0


def test_where_there_is_no_encoder_to_copy_that_is_said(tmp_path, fit_diffusion, vae_cache):
    shutil.copytree(vae_cache, tmp_path / "cache")
    run = fit_diffusion(tmp_path / "words", tmp_path / "cache", "conditions.text=words", "conditions.embed_text=true", "loop.steps=1")
    assert not (run / FOLDER).exists()
    with pytest.raises(ConfigError, match="listens to none"):
        fit_diffusion(tmp_path / "none", tmp_path / "cache", "conditions.embed_text=true", "loop.steps=1")


def test_the_flag_is_the_key(tmp_path, monkeypatch, vae_cache, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = str(Path(__file__).parents[1] / "tiny" / "fit-diffusion.yaml")
    assert main(["fit-diffusion", "--config", tiny, "--latents", str(vae_cache), "--embed-text", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["conditions"]["embed_text"] is True


def test_a_run_whose_encoder_was_moved_hears_by_the_name_that_it_is_continued_with(trained, tmp_path, fit_diffusion, words):
    run = trained()
    before = drawn(run, prompt="a red circle")
    moved = Path(shutil.move(tmp_path / "encoder", tmp_path / "moved"))
    for steps in (2, 3):  # nothing is left to do, then a step
        fit_diffusion(run, tmp_path / "cache", *words(moved)[:2], f"loop.steps={steps}", "drop=0.1")
        made = drawn(run, prompt="a red circle")
        assert torch.equal(made, before) == (steps == 2)


@pytest.mark.parametrize("named", ["nowhere", "another"])
def test_a_run_goes_on_with_no_other_encoder_under_a_new_name(trained, tmp_path, fit_diffusion, words, named):
    run = trained()
    before = (run / "config.yaml").read_text(), (run / "model.safetensors").read_bytes()
    other = tmp_path / named
    if named == "another":
        shutil.copytree(tmp_path / "encoder", other)
        (other / "config.json").write_text((other / "config.json").read_text() + " ")
    with pytest.raises(MissingError, match="is missing" if named == "nowhere" else "is another one than the model was trained with"):
        fit_diffusion(run, tmp_path / "cache", *words(other)[:2], "loop.steps=4", "drop=0.1")
    assert (run / "model.safetensors").read_bytes() == before[1]
    drawn(run, prompt="a red circle")


def test_a_damaged_copy_in_the_run_is_named(trained, tmp_path):
    run = trained("conditions.embed_text=true")
    weights = run / FOLDER / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    drawn(run, prompt="a red circle")  # by the one that it was copied from
    shutil.move(tmp_path / "encoder", tmp_path / "away")
    with pytest.raises(MissingError, match=f"{run / FOLDER}, whose files are damaged or others"):
        drawn(run, prompt="a red circle")
