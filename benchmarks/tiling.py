"""What tiles cost and how near they come: memory and seconds of encoding and decoding, and the difference to the whole picture.

python benchmarks/tiling.py [--sizes 512 1024 2048] [--tiles 512] [--device cpu] [--run RUN]     # memory and seconds
python benchmarks/tiling.py --differences [...]                                                  # to the whole picture

Without --run two small VAEs, with and without attention, are fitted for about a minute
each to pictures of discs that hide each other, their radii spread by a power law: edges,
flat areas and contrasts at all scales, as in photographs. A row is a process of its own;
its memory is what the process (on CUDA: the allocator) held at most beyond what it held
before, network and picture loaded; without /proc/self/clear_refs that is only what is
beyond all that it ever held. Differences are in 255ths of the picture's range.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep, ldmctl
from process import memory
from torch import Tensor

from ldmctl.config.schemas.shared import Compute
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.tiling import HALO, PASSES, spans, tiled
from ldmctl.pictures.images import to_float
from ldmctl.pictures.png import write_png
from ldmctl.storage.record import model_file
from ldmctl.training import engine as engines

RESET = Path("/proc/self/clear_refs")
UNTILED = 1024  # pixels; larger pictures are not tried whole
STEPS, SIDE = 400, 64
AUTOENCODER = ["autoencoder.type=vae", "autoencoder.widths=[16,32,48]", "autoencoder.layers=1", "autoencoder.norm_groups=4"]
TRAINING = [
    "image.patch=null",
    "loop.batch=8",
    "loop.lr=2e-3",
    "loop.warmup=50",
    "loop.decay=cosine",
    "loop.ema=0.98",
    "losses.pixel=l2",
    "perceptual=null",
    "discriminator=null",
]


def leaves(size: int, seed: int) -> Tensor:
    """uint8 [3,size,size]: discs on discs, of radii from half the picture down to 4 pixels with density r^-3 (Lee, Mumford and Huang 2001)."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.arange(size)
    image = torch.full((3, size, size), 128.0)
    least = 8 / size
    for _ in range(1500):
        u, x, y = torch.rand(3, generator=draw).tolist()
        radius = size / 2 * (least**2 / (least**2 + u * (1 - least**2))) ** 0.5
        colour = 255 * torch.rand(3, 1, 1, generator=draw)
        top, left = (max(0, int(size * at - radius)) for at in (y, x))
        bottom, right = (min(size, int(size * at + radius) + 1) for at in (y, x))
        inside = (rows[top:bottom, None] - size * y) ** 2 + (rows[left:right] - size * x) ** 2 < radius**2
        area = image[:, top:bottom, left:right]
        area.copy_(torch.where(inside, colour, area))
    noise = torch.randn(image.shape, generator=draw) * torch.linspace(0, 12, size)  # grain on one side only
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


def fit(folder: Path, attention: bool, device: str) -> Path:
    """The run folder of a small VAE."""
    data = folder / "leaves"
    if not data.exists():
        for seed in range(200):
            write_png(data / f"{seed:03d}.png", leaves(SIDE, seed))
    out = folder / ("attention" if attention else "plain")
    words = [*AUTOENCODER, f"autoencoder.attention={str(attention).lower()}", *TRAINING, f"loop.steps={STEPS}", f"image.size={SIDE}"]
    ldmctl("fit-ae", *words, "--data", str(data), "--device", device, "--out", str(out), cwd=folder)
    return out


def cost(run: str, size: int, tile: int | None, device: str) -> dict[str, Any]:
    """Memory and seconds of one picture; to be called in a fresh process."""
    codec = open_codec(run, device, tile)
    image = to_float(leaves(size, 1000))[None].to(codec.engine.device)
    Codec(codec.autoencoder, codec.engine).reconstruct(image[..., :64, :64])  # kernels are loaded
    forget_peak(device)
    before, began = held(device), time.perf_counter()
    latent = codec.draw(codec.encode(image), torch.Generator(device).manual_seed(0))
    settle(device)
    encoded = time.perf_counter()
    codec.decode(latent, (size, size))
    settle(device)
    seconds = {"encode": round(encoded - began, 2), "decode": round(time.perf_counter() - encoded, 2)}
    return {
        "size": size,
        "tile": tile,
        "peak_mib": round(held(device) - before),
        "picture_mib": round(image.nbytes / 2**20),
        "seconds": seconds,
    }


def held(device: str) -> float:
    """MiB that this process has held at most since `forget_peak`."""
    found = memory()
    return float(found["device_mib" if device == "cuda" else "resident_mib"] or 0)


def forget_peak(device: str) -> None:
    """Let the peak begin with what is held now, where the system can."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif RESET.exists():
        RESET.write_text("5")


def settle(device: str) -> None:
    """Wait until the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def open_codec(run: str, device: str, tile: int | None = None) -> Codec:
    """The autoencoder of a run in float32."""
    engine = engines.start(Compute(device=device, precision="fp32"))  # type: ignore[arg-type]
    return Codec(load_autoencoder(model_file(run, verb="fit-ae"), engine)[0], engine, tile=tile)


@torch.no_grad()
def differences(run: str, size: int, tile: int, device: str) -> list[dict[str, Any]]:
    """How far tiles are from the whole after each number of passes."""
    codec = open_codec(run, device)
    model, factor = codec.autoencoder, codec.autoencoder.factor
    image = to_float(leaves(size, 1000))[None].to(codec.engine.device)
    cells, side = (size // factor, size // factor), tile // factor
    moments = codec.encode(image)
    latent = getattr(model, "mode", model.draw)(moments)
    whole = model.decode(latent).clamp(-1, 1)
    away = far_from_seams(cells[0], side, factor).to(whole.device)
    rows = []
    for passes in range(PASSES + 2):
        settings = {"cells": cells, "side": side, "halo": min(HALO, side // 4), "passes": passes}
        coded = (tiled(model.encode, image, **settings) - moments).square().mean().sqrt() / moments.std()
        error = (tiled(model.decode, latent, **settings).clamp(-1, 1) - whole).abs() * 127.5
        found = {"latent_rms_over_deviation": coded, "mean": error.mean(), "max": error.max()}
        if away.any():
            found |= {"mean_away_from_seams": error[..., away].mean(), "max_away_from_seams": error[..., away].max()}
        rows.append({"size": size, "tile": tile, "passes": passes, **{name: float(f"{float(value):.3g}") for name, value in found.items()}})
    return rows


def far_from_seams(length: int, side: int, factor: int) -> Tensor:
    """bool [H,W]: pixels of a square picture that are a halo or more away from where two tiles meet."""
    halo = min(HALO, side // 4)
    cuts = torch.tensor([span.first for span in spans(length, side, halo)][1:])
    axis = ((torch.arange(length)[:, None] + 0.5 - cuts).abs() > halo).all(1).repeat_interleave(factor)
    return axis[:, None] & axis


def alone(what: str, *words: Any) -> Any:
    """The result of one of this file's measurements in a process of its own."""
    command = [sys.executable, __file__, "--row", json.dumps([what, *words])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Fit, measure, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--tiles", type=int, nargs="+", default=[512])
    parser.add_argument("--differences", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--run")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.row:
        what, *words = json.loads(asked.row)
        print(json.dumps({"cost": cost, "differences": differences}[what](*words)))
        return
    machine, found = describe(), {}
    with tempfile.TemporaryDirectory() as folder:
        runs = (
            {"given": asked.run}
            if asked.run
            else {name: str(fit(Path(folder), name == "attention", asked.device)) for name in ("plain", "attention")}
        )
        for name, run in runs.items():
            if asked.differences:
                size = max(size for size in asked.sizes if size <= UNTILED)
                found[name] = [row for tile in asked.tiles if size > tile for row in alone("differences", run, size, tile, asked.device)]
            else:
                whole = [alone("cost", run, size, None, asked.device) for size in asked.sizes if size <= UNTILED]
                inside = [alone("cost", run, size, tile, asked.device) for tile in asked.tiles for size in asked.sizes if size > tile]
                found[name] = {"whole": whole, "tiled": inside}
    name = "tiling_differences" if asked.differences else "tiling"
    keep(name, {"device": asked.device, "halo": HALO, "passes": PASSES, **found}, machine)


if __name__ == "__main__":
    main()
