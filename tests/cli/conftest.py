"""What several files of commands of `ldmctl sample` start from."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("sampled") / "ldm", vae_cache, "loop.steps=2")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a picture, masks and a text, in which commands are given."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save("a.png")
    for name, box, size in (
        ("half", (8, 0, 16, 16), (16, 16)),
        ("black", (0, 0, 0, 0), (16, 16)),
        ("white", (0, 0, 16, 16), (16, 16)),
        ("other", (0, 0, 4, 4), (20, 20)),
    ):
        mask = Image.new("L", size)
        mask.paste(255, box)
        mask.save(f"{name}.png")
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path
