"""machine.compile=true trains the same network: the same losses up to rounding, the same file, and either way continues the other."""

import json
import shutil

import pytest
import torch

from ldmctl.storage import weights
from ldmctl.training.compiling import lacking_to_compile
from ldmctl.training.engine import Engine

LACKING = lacking_to_compile(Engine(torch.device("cpu"), torch.float32))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(LACKING is not None, reason=f"torch.compile needs {LACKING}")]


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize(
    "words", [[], ["denoiser.type=dit", "denoiser.width=16", "denoiser.depth=1", "denoiser.head_dim=8"]], ids=["unet", "dit"]
)
def test_compiled_training_learns_what_eager_training_learns_and_they_continue_each_other(tmp_path, fit_diffusion, vae_cache, words):
    steps = ["loop.steps=6", "loop.micro=4", *words]
    eager = fit_diffusion(tmp_path / "eager", vae_cache, *steps)
    compiled = fit_diffusion(tmp_path / "compiled", vae_cache, *steps, "machine.compile=true")
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-4)
    (one, header), (other, same) = (weights.load(folder / "model.safetensors") for folder in (eager, compiled))
    assert header == same and one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-2, atol=1e-4)

    longer = ["loop.steps=9", *steps[1:]]
    shutil.copytree(eager, tmp_path / "then compiled")
    on, back = (
        fit_diffusion(tmp_path / "then compiled", vae_cache, *longer, "machine.compile=true"),
        fit_diffusion(compiled, vae_cache, *longer),
    )
    assert losses(on) == pytest.approx(losses(back), rel=1e-3) and len(losses(on)) == 9
