"""Commands that write pictures or weights where a person says so replace what they wrote themselves, and nothing else."""

import shutil

import pytest
import torch
from PIL import Image

from ldmctl.errors import ConfigError, MismatchError
from ldmctl.evaluation.checkup import checkup
from ldmctl.pictures.png import write_png
from ldmctl.stages.eval_lpips import eval_lpips
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
