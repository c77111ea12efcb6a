"""The five verbs from Python: one after the other on drawn shapes, each starting where the previous one ended."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ldmctl import api
from ldmctl.errors import ConfigError, MismatchError

TINY = ["loop.batch=8", "loop.report=2", "loop.save=2", "loop.preview=2", "loop.workers=0", "loop.warmup=0"]
PLAIN = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """(folder, what each verb gave)."""
    folder = tmp_path_factory.mktemp("chain")
    ae, cache, ldm = folder / "ae", folder / "cache", folder / "ldm"
    few = ["dataset.count=24", "dataset.val_count=8", "autoencoder.widths=[8,16]", "autoencoder.channels=2", "loop.steps=3", *TINY]
    small = ["denoiser.widths=[16]", "denoiser.attention=[false]", "denoiser.head_dim=16", "preview.count=4", "preview.steps=2"]
    gave = {
        "fit_ae": api.fit_ae(few, data="shapes", out=ae, **PLAIN),
        "encode_dataset": api.encode_dataset(["workers=0"], run=ae, out=cache, **PLAIN),
        "fit_diffusion": api.fit_diffusion([*small, "loop.steps=4", *TINY], latents=f"{cache}/", out=ldm, **PLAIN),
        "sample": api.sample(["batch=4"], run=ldm, count=5, steps=2, label="green circle", guidance=2, out=folder / "samples", **PLAIN),
        "eval_lpips": api.eval_lpips(["perceptual=null", "workers=0"], run=ae, out=folder / "verdict", **PLAIN),
    }
    return folder, gave


def test_each_verb_gives_what_it_made(chain):
    folder, gave = chain
    assert gave["fit_ae"]["run"] == str(folder / "ae") and gave["fit_ae"]["steps"] == 3
    assert {"val/loss", "val/psnr"} <= set(gave["fit_ae"]) and Path(gave["fit_ae"]["model"]).is_file()
    assert gave["encode_dataset"]["items"] == {"train": 24, "val": 8} and gave["encode_dataset"]["latent"] == [2, 16, 16]
    assert set(gave["encode_dataset"]["statistics"]) == {"mean", "deviation"}
    assert gave["fit_diffusion"]["steps"] == 4 and "val/loss" in gave["fit_diffusion"]
    assert gave["eval_lpips"]["count"] == 8 and set(gave["eval_lpips"]) >= {"of", "count", "psnr", "ssim", "latent", "verdict"}
    assert sorted(file.name for file in (folder / "verdict").iterdir()) == ["latents.png", "verdict.png"]
    assert gave["eval_lpips"]["psnr"]["low"] <= gave["eval_lpips"]["psnr"]["mean"] <= gave["eval_lpips"]["psnr"]["high"]


def test_sample_leaves_one_png_per_seed_and_makes_none_twice(chain):
    folder, gave = chain
    assert sorted(file.name for file in (folder / "samples").glob("*.png")) == [*(f"{seed:06d}.png" for seed in range(5)), "grid.png"]
    assert gave["sample"]["made"] == gave["sample"]["count"] == 5 and gave["sample"]["labels"] == ["green circle"] * 5
    options = {"run": folder / "ldm", "steps": 2, "label": ["green circle"], "guidance": 2.0, "out": folder / "samples", **PLAIN}
    assert api.sample(["batch=4"], count=6, **options)["made"] == 1


def test_the_same_call_goes_on_where_it_ended(chain):
    folder, _ = chain
    few = ["dataset.count=24", "dataset.val_count=8", "autoencoder.widths=[8,16]", "autoencoder.channels=2", *TINY]
    assert api.fit_ae([*few, "loop.steps=3"], data="shapes", out=folder / "ae", **PLAIN)["steps"] == 3
    with pytest.raises(MismatchError, match=r"loop\.seed: 0 there, 4 asked for"):
        api.fit_ae([*few, "loop.steps=3", "loop.seed=4"], data="shapes", out=folder / "ae", **PLAIN)


def test_a_loaded_autoencoder_encodes_and_decodes_tensors(chain):
    folder, _ = chain
    codec = api.load_autoencoder(folder / "ae", **PLAIN)
    image = torch.rand(2, 3, 33, 32) * 2 - 1  # no multiple of the factor: padded and cropped
    moments = codec.encode(image)
    latent = codec.draw(moments, torch.Generator().manual_seed(0))
    assert moments.shape == (2, 4, 17, 16) and latent.shape == (2, 2, 17, 16)
    made = codec.decode(latent, (33, 32))
    assert made.shape == codec.reconstruct(image).shape == image.shape and made.abs().max() <= 1 and made.dtype == torch.float32


def test_a_loaded_network_speaks_of_latents_that_its_codec_decodes(chain):
    folder, gave = chain
    network, codec, header = api.load_network(folder / "ldm", **PLAIN)
    latent = torch.randn(2, 2, 16, 16)
    said = network(latent, torch.tensor([10.0, 900.0]), torch.tensor([0, -1]))
    assert said.shape == latent.shape and header["prediction"] == "x0" and len(header["classes"]) == 16
    assert codec.mean.flatten().tolist() == pytest.approx(gave["encode_dataset"]["statistics"]["mean"])
    assert codec.decode(latent, (32, 32)).shape == (2, 3, 32, 32)
    with pytest.raises(MismatchError, match="not an autoencoder"):
        api.load_autoencoder(folder / "ldm", **PLAIN)


def test_it_is_quiet_unless_given_a_voice(chain, capfd):
    folder, _ = chain
    again = {"run": folder / "ae", "out": folder / "cache", **PLAIN}
    api.encode_dataset(["workers=0"], **again)
    assert capfd.readouterr() == ("", "")
    api.encode_dataset(["workers=0"], console=api.Console(), **again)
    captured = capfd.readouterr()
    assert captured.out == "" and "is complete already" in captured.err


def test_parents_may_be_named_as_keys(chain, tmp_path, monkeypatch):
    folder, _ = chain
    monkeypatch.chdir(folder.parent)
    assert api.encode_dataset([f"run={folder / 'ae'}", "workers=0"], out=tmp_path / "cache", **PLAIN)["items"] == {"train": 24, "val": 8}
    assert api.eval_lpips(["perceptual=null", "workers=0", "count=4", f"run={folder / 'ae'}"], **PLAIN)["count"] == 4
    with pytest.raises(ConfigError, match=r"unknown key\. Did you mean 'widths'"):
        api.fit_diffusion([f"latents={folder / 'cache'}", "denoiser.width=3"], out=tmp_path, **PLAIN)


def test_two_folders_are_compared_whatever_runs_lie_around(chain, monkeypatch):
    folder, _ = chain
    (folder / "runs").mkdir()
    (folder / "runs" / "ae").symlink_to(folder / "ae")
    monkeypatch.chdir(folder)
    pairs = (folder / "samples", "samples")
    for result in (
        api.eval_lpips(["perceptual=null"], pairs=pairs, **PLAIN),
        api.eval_lpips(["perceptual=null", "pairs=[samples, samples]"], **PLAIN),
    ):
        assert result["count"] == 7 and result["ssim"]["mean"] == pytest.approx(1)


def test_several_devices_in_one_process_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match="torchrun"):
        api.fit_ae(["machine.devices=2"], data="shapes", out=tmp_path / "ae")


def test_importing_it_is_torch_free():
    loaded = "import sys; from ldmctl import api; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "False\n"
