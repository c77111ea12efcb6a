"""The same promises on a CUDA device: `pytest -m gpu`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ldmctl.latents import manifest
from ldmctl.latents.reader import Latents
from ldmctl.latents.resident import Resident
from ldmctl.storage import weights
from ldmctl.training.engine import Engine

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ADVERSARIAL = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=2"]


def losses(run):
    """The training loss of each report."""
    return [row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_both_stages_train_in_every_precision(precision, tmp_path, fit_ae, encode, fit_diffusion, vqvae_words):
    words = ["machine.device=cuda", f"machine.precision={precision}"]
    ae = fit_ae(tmp_path / "ae", *vqvae_words, *ADVERSARIAL, *words)
    cache = encode(tmp_path / "cache", ae, *words)
    ldm = fit_diffusion(tmp_path / "ldm", cache, *words)
    for run in (ae, ldm):
        assert len(losses(run)) == 4 and all(torch.tensor(losses(run)).isfinite())


def test_a_prolonged_run_is_the_long_run_bit_for_bit(tmp_path, vae_cache, fit_diffusion):
    words = [
        "machine.device=cuda",
        "machine.precision=fp32",
        "machine.compile=false",
    ]  # compiled, the embedding's gradient is summed in any order
    whole = fit_diffusion(tmp_path / "whole", vae_cache, *words, "loop.steps=8")
    fit_diffusion(tmp_path / "parts", vae_cache, *words, "loop.steps=4")
    parts = fit_diffusion(tmp_path / "parts", vae_cache, *words, "loop.steps=8")
    one, other = (weights.load(run / "state.safetensors")[0] for run in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_two_devices_that_share_the_network_learn_what_two_that_share_the_batch_learn(precision, tmp_path, vae_cache, fit_diffusion):
    words = ["machine.device=cuda", f"machine.precision={precision}", "machine.compile=false", "loop.lr=1e-4", "loop.preview=2"]
    config = Path(__file__).parent / "tiny" / "fit-diffusion.yaml"
    for parallel in ("ddp", "fsdp"):
        command = ["fit-diffusion", "--config", config, "--out", tmp_path / parallel, f"latents={vae_cache}", "--devices", "2"]
        subprocess.run(
            [sys.executable, "-m", "ldmctl", *map(str, command), *words, f"machine.parallel={parallel}"], check=True, timeout=300
        )
    assert losses(tmp_path / "fsdp") == pytest.approx(losses(tmp_path / "ddp"), rel=1e-3)
    assert len(list((tmp_path / "fsdp").glob("state-*-of-00002.safetensors"))) == 2
    one, other = (weights.load(tmp_path / parallel / "model.safetensors")[0] for parallel in ("ddp", "fsdp"))
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in other.items()}
    fit_diffusion(tmp_path / "fsdp", vae_cache, *words, "loop.steps=6")
    assert len(losses(tmp_path / "fsdp")) == 6


@pytest.mark.parametrize("store", ["moments", "codes"])
def test_resident_latents_answer_as_mapped_ones_do(store, fit_ae, encode, tmp_path):
    grid = "autoencoder={type: fsq, levels: [8, 8, 8], widths: [8, 8], norm_groups: 4}"  # 512 codes: of two bytes
    cache = encode(tmp_path / "cache", fit_ae(tmp_path / "ae", grid), f"store={store}")
    latents = Latents(cache, manifest.read(cache), "train")
    engine = Engine(torch.device("cuda"), torch.float32)
    assert Resident.fits(latents, engine)
    items = torch.tensor([3, 0, 7, 3])
    assert torch.equal(Resident(latents, engine).stored(items).cpu(), latents.stored(items))
