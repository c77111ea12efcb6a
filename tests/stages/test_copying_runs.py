"""A run that learned its pictures by heart is caught, and the same run after a few steps is not accused."""

import numpy as np
import pytest
from PIL import Image

from ldmctl.config.compared import pictures_for
from ldmctl.stages.eval_samples import eval_samples

NETWORK = ["denoiser.widths=[16,32]", "denoiser.norm_groups=8", "denoiser.attention=[false,false]", "conditioner=null"]
TRAINING = ["loop.batch=64", "loop.lr=5e-3", "loop.ema=0.9", "loop.decay=cosine", "loop.report=500", "loop.publish=last"]
WORDS = ["machine.device=cpu", "machine.precision=fp32", "workers=0", "extractor=latent", "count=100", "steps=25", "batch=64"]


def draw(folder, count, seed):
    """Small pictures, all different."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for index in range(count):
        small = Image.fromarray(random.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        small.resize((8, 8), Image.Resampling.BICUBIC).save(folder / f"{index:03d}.png")


@pytest.mark.slow
def test_a_run_that_learned_its_64_pictures_by_heart_is_caught_and_one_that_only_began_to_learn_is_not(
    tiny, quiet, fit_ae, encode, fit_diffusion, tmp_path
):
    pictures = tmp_path / "pictures"
    draw(pictures / "train", 64, 0)
    draw(pictures / "val", 200, 1)
    cache = encode(tmp_path / "cache", fit_ae(tmp_path / "ae", f"data={pictures}", "image.size=8", "autoencoder=identity"))
    shares = {}
    for steps in (10, 1500):
        run = fit_diffusion(tmp_path / f"ldm-{steps}", cache, *NETWORK, *TRAINING, f"loop.steps={steps}")
        config = tiny("eval-samples", f"run={run}", *WORDS, below=pictures_for(run=str(run)))
        found = eval_samples(config, tmp_path / f"out-{steps}", console=quiet)
        shares[steps] = found["memorisation"]["share"]
    assert shares[10] <= 0.02 and shares[1500] > 0.5
    assert "the run repeats its training pictures after 1,500 passes over the 64 training pictures" in found["verdict"][-2]
