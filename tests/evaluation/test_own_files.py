"""Commands that write pictures or weights where a person says so replace what they wrote themselves, and nothing else."""

import re
import shutil

import pytest
import torch
from PIL import Image

from ldmctl.errors import ConfigError, MismatchError
from ldmctl.evaluation.checkup import checkup
from ldmctl.pictures.checking import check_data
from ldmctl.pictures.png import write_png
from ldmctl.stages.eval_lpips import eval_lpips
from ldmctl.storage.answers import refuse_foreign_answer
from ldmctl.training.posthoc_ema import write_model


def mine(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((20, 20), 50).save(file)
    return file.read_bytes()


@pytest.mark.parametrize("name", ["verdict.png", "latents.png"])
def test_eval_lpips_replaces_its_own_pictures_alone(vae_run, tmp_path, tiny, quiet, name):
    from ldmctl.config.presets import pictures_of

    words = [f"run={vae_run}", "perceptual=null", "workers=0", "count=4", "machine.device=cpu"]
    config = tiny("eval-lpips", *words, below=pictures_of(vae_run))
    before = mine(tmp_path / "out" / name)
    with pytest.raises(MismatchError, match=rf"{name} is there already and was not made by ldmctl, so it is not replaced") as caught:
        eval_lpips(config, console=quiet, out=tmp_path / "out")
    assert caught.value.exit_code == 6
    assert [file.name for file in (tmp_path / "out").iterdir()] == [name] and (tmp_path / "out" / name).read_bytes() == before
    for _ in range(2):
        assert len(eval_lpips(config, console=quiet, out=tmp_path / "own")["pictures"]) == 2


def test_the_checkup_replaces_its_own_picture_alone(fit_diffusion, vae_cache, tmp_path):
    run = fit_diffusion(tmp_path / "ldm", vae_cache, "loop.steps=1")
    before = mine(tmp_path / "out" / "checkup.png")
    with pytest.raises(MismatchError, match=r"checkup\.png is there already and was not made by ldmctl"):
        checkup(str(run), out=tmp_path / "out", device="cpu")
    assert (tmp_path / "out" / "checkup.png").read_bytes() == before
    write_png(tmp_path / "out" / "checkup.png", torch.zeros(3, 9, 9, dtype=torch.uint8), {"Description": "Rows: originals. whiten: sound."})
    assert checkup(str(run), out=tmp_path / "out", device="cpu")["picture"]


def test_an_average_never_replaces_a_model_or_a_file_of_others(fit_diffusion, vae_cache, tmp_path):
    run = fit_diffusion(tmp_path / "ldm", vae_cache, "loop.keep.averages=1")
    stored = next((run / "averages").iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    shutil.copyfile(run / "model.safetensors", tmp_path / "copy.safetensors")
    for file in (run / "model.safetensors", stored, tmp_path / "notes.txt", tmp_path / "folder", tmp_path / "copy.safetensors"):
        before = file.read_bytes() if file.is_file() else None
        with pytest.raises(ConfigError, match=r"Name another --out|wants the name of a file"):
            write_model(run, 0.1, out=file)
        assert before is None or file.read_bytes() == before
    for length in (0.1, 0.09):
        assert write_model(run, length, out=tmp_path / "own.safetensors")[0].is_file()


@pytest.mark.parametrize("name", ["contact.png", "check.json"])
def test_data_check_replaces_its_own_files_alone(tmp_path, quiet, name):
    for number in range(3):
        mine(tmp_path / "set" / f"{number}.png")
    out = tmp_path / "out"
    before = mine(out / name) if name.endswith("png") else write(out / name, '{"mine": 1}')
    with pytest.raises(MismatchError, match=rf"{re.escape(name)} is there already and was not made by ldmctl, so it is not replaced"):
        look(tmp_path / "set", out, quiet)
    assert [file.name for file in out.iterdir()] == [name] and (out / name).read_bytes() == before
    for _ in range(2):
        assert len(look(tmp_path / "set", tmp_path / "own", quiet)["written"]) == 2


def test_data_check_writes_neither_into_the_pictures_nor_into_a_run_nor_over_a_file(tmp_path, quiet, vae_run):
    for number in range(3):
        mine(tmp_path / "set" / f"{number}.png")
    (tmp_path / "file").write_text("mine")
    held = sorted(file.name for file in vae_run.iterdir())
    for out, error in (("set", ConfigError), ("set/below", ConfigError), (vae_run, ConfigError), ("file", MismatchError)):
        with pytest.raises(error, match="--out"):
            look(tmp_path / "set", tmp_path / out, quiet)
    assert sorted(file.name for file in (tmp_path / "set").iterdir()) == ["0.png", "1.png", "2.png"]
    assert sorted(file.name for file in vae_run.iterdir()) == held and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("text", ["not JSON", "[1]", '{"mine": 1}', "[" * 100_000])
def test_a_text_of_others_is_never_replaced(tmp_path, text):
    write(tmp_path / "judgement.json", text)
    with pytest.raises(MismatchError, match=r"judgement\.json is there already"):
        refuse_foreign_answer(tmp_path / "judgement.json", ("measures", "verdict"))
    write(tmp_path / "judgement.json", '{"measures": 1, "verdict": 2, "more": 3}')
    refuse_foreign_answer(tmp_path / "judgement.json", ("measures", "verdict"))
    refuse_foreign_answer(tmp_path / "none.json", ("measures",))


def look(data, out, console):
    return check_data(str(data), {"size": 16}, out=out, split=False, metadata=False, console=console)


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file.read_bytes()
