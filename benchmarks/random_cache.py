"""A cache of latents of random pixels, made by the commands that make real ones."""

import json
from pathlib import Path

import torch
from machine import ldmctl

from ldmctl.pictures.png import write_png

HELD_OUT = 8
AUTOENCODERS = {
    "identity": {"type": "identity"},
    "vae": {"type": "vae", "channels": 3, "widths": [8, 8], "layers": 1, "norm_groups": 4, "attention": False},  # untrained, factor 2
}


def make(folder: Path, *, latent: tuple[int, int, int], count: int, autoencoder: str = "identity") -> Path:
    """folder/cache with `count` latents [c,n,n] to train on: pixels themselves, or what a VAE (c = 3) draws from its moments."""
    channels, size, _ = latent
    if autoencoder == "vae":
        channels, size = 3, 2 * size
    random = torch.Generator().manual_seed(0)
    for split, number in (("train", count), ("val", HELD_OUT)):
        for index, picture in enumerate(torch.randint(0, 256, (number, channels, size, size), generator=random, dtype=torch.uint8)):
            write_png(folder / "pictures" / split / f"{index:06d}.png", picture)
    config = {
        "dataset": {"type": "folder", "path": str(folder / "pictures")},
        "image": {"size": size, "channels": channels},
        "autoencoder": AUTOENCODERS[autoencoder],
        "loop": {"steps": 1, "batch": 1},
    }
    (folder / "ae.yaml").write_text(json.dumps(config))
    ldmctl("fit-ae", "--config", "ae.yaml", "--out", "ae", "-q", cwd=folder)
    ldmctl("encode-dataset", "--run", "ae", "--out", "cache", "-q", cwd=folder)
    return folder / "cache"
