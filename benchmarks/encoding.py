"""encode-dataset beside the bare forward of its encoder, and beside a loop that encodes one picture at a time.

python benchmarks/encoding.py              # four minutes on two cores; writes results/encoding.json
python benchmarks/encoding.py --rounds 1 --print   # only a look

A folder of JPEGs of 256x256 pixels, smooth and random, is encoded by an untrained VAE, in automatic precision everywhere:

command  `ldmctl encode-dataset` as it is: reading, decoding, preparing, encoding, statistics, writing, checksums. Its rate is that of the pictures which a
         longer run has more than a shorter one, over the seconds that it takes longer, so that starting, which is the same for both, does not count;
         `images_per_second_with_start` is of the longer run, whole
bare     the encoder's forward alone, the same batch on the device again and again: what the hardware gives
alone    for each picture: open, to the device, encode, back, one file written; as feature extraction is often scripted

Each runs in a process of its own, in turn, round after round; medians. Goals: 0.9 of `bare` where there are cores enough to decode beside it, and on
a GPU five times `alone`. The files were just written, so they are read from the system's cache.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, keep, ldmctl
from PIL import Image
from process import command, memory, script
from torch import Tensor

from ldmctl.config.schemas.shared import Compute
from ldmctl.latents.codec import load_autoencoder
from ldmctl.pictures.images import to_float, to_tensor
from ldmctl.training import engine as engines

SIDE = 256  # pixels
DIFFERENT = 512  # pictures; beyond that, further names of the same files
SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"widths": [32, 64, 64, 128], "layers": 1, "batch": 16, "fewer": 48, "more": 336, "alone": 32, "forwards": 8},
    "cuda": {"widths": [128, 256, 512, 512], "layers": 2, "batch": 64, "fewer": 2048, "more": 18432, "alone": 512, "forwards": 50},
}
WARM = 2  # forwards before the clock starts


def main() -> None:
    """Prepare pictures and an autoencoder, measure, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        work = SIZES[device] | {"device": device, "folder": str(folder)}
        prepare(work)
        found = {"sizes": SIZES[device], "rounds": asked.rounds, **measured(work, asked.rounds)}
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("encoding", found, machine)


def measured(work: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Medians of each, and the two ratios."""
    itself = Path(__file__)
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "fewer": lambda: encoded(work, "fewer"),
        "more": lambda: encoded(work, "more"),
        "bare": lambda: script(itself, "--bare", json.dumps(work)),
        "alone": lambda: script(itself, "--alone", json.dumps(work)),
    }
    done: dict[str, list[dict[str, Any]]] = {side: [] for side in runs}
    for number in range(rounds):
        for side, run in runs.items():
            done[side].append(run())
            print(f"round {number + 1}: {side}: {done[side][-1]['seconds']:.3f} s", file=sys.stderr)
    seconds = {side: statistics.median(run["seconds"] for run in each) for side, each in done.items()}
    rates = {
        "command": (work["more"] - work["fewer"]) / (seconds["more"] - seconds["fewer"]),
        "bare": work["batch"] / seconds["bare"],
        "alone": 1 / seconds["alone"],
    }
    return {
        "precision": done["bare"][0]["precision"],
        "images_per_second": {side: round(rate, 2) for side, rate in rates.items()},
        "images_per_second_with_start": round(work["more"] / seconds["more"], 2),
        "command_over_bare": round(rates["command"] / rates["bare"], 3),
        "command_over_alone": round(rates["command"] / rates["alone"], 2),
        "seconds": {side: [round(run["seconds"], 4) for run in each] for side, each in done.items()},
        "memory_mib": {side: {key: done[side][-1][key] for key in ("resident_mib", "device_mib")} for side in ("more", "bare", "alone")},
    }


def prepare(work: dict[str, Any]) -> None:
    """Two folders of JPEGs, fewer/ and more/, and in ae/ the autoencoder after one step."""
    folder = Path(work["folder"])
    random = torch.Generator().manual_seed(0)
    for name in ("more", "fewer"):
        (folder / name).mkdir()
    for index in range(min(DIFFERENT, work["more"])):
        coarse = torch.rand(1, 3, 16, 16, generator=random)
        picture = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")[0].clamp(0, 1)
        Image.fromarray((picture * 255).byte().permute(1, 2, 0).numpy()).save(folder / "more" / f"{index:06d}.jpg", quality=90)
    for index in range(DIFFERENT, work["more"]):
        os.link(folder / "more" / f"{index % DIFFERENT:06d}.jpg", folder / "more" / f"{index:06d}.jpg")
    for file in sorted((folder / "more").iterdir())[: work["fewer"]]:
        os.link(file, folder / "fewer" / file.name)
    config = {
        "dataset": {"type": "folder", "path": str(folder / "fewer")},
        "image": {"size": 64},
        "autoencoder": {"type": "vae", "widths": work["widths"], "layers": work["layers"]},
        "loop": {"steps": 1, "batch": 1},
    }
    (folder / "ae.yaml").write_text(json.dumps(config))
    ldmctl("fit-ae", "--config", "ae.yaml", "--out", "ae", "-q", cwd=folder)


def encoded(work: dict[str, Any], which: str) -> dict[str, Any]:
    """The command on one of the folders, begun again."""
    keys = [f"image.size={SIDE}", f"batch={work['batch']}", "--device", work["device"]]
    words = ["encode-dataset", "--run", "ae", "--data", which, "--out", f"cache-{which}", "--overwrite", "-q"]
    done = command(*words, *keys, cwd=Path(work["folder"]))
    if (count := sum(done["items"].values())) != work[which]:
        raise SystemExit(f"encode-dataset encoded {count} of {work[which]} pictures.")
    return done


# -- what it is compared with ------------------------------------------------------


def started(work: dict[str, Any]) -> tuple[engines.Engine, Any]:
    """The engine and the frozen autoencoder, as the command has them."""
    engine = engines.start(Compute(device=work["device"]))
    return engine, load_autoencoder(Path(work["folder"]) / "ae" / "model.safetensors", engine)[0]


def encode(engine: engines.Engine, autoencoder: Any, image: Tensor) -> Tensor:
    """image [B,3,H,W] in [-1, 1] -> moments [B,m,h,w]."""
    with torch.no_grad(), engine.autocast():
        return autoencoder.encode(image)


def bare(work: dict[str, Any]) -> dict[str, Any]:
    """Seconds of one forward of a whole batch."""
    engine, autoencoder = started(work)
    files = sorted(Path(work["folder"], "more").iterdir())[: work["batch"]]
    image = torch.stack([opened(file) for file in files]).to(engine.device)
    seconds = []
    for _ in range(WARM + work["forwards"]):
        began = time.perf_counter()
        encode(engine, autoencoder, image)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[WARM:]), "precision": str(engine.dtype).removeprefix("torch."), **memory()}


def alone(work: dict[str, Any]) -> dict[str, Any]:
    """Seconds of one picture in a loop over files."""
    engine, autoencoder = started(work)
    folder = Path(work["folder"])
    (folder / "alone").mkdir(exist_ok=True)
    seconds = []
    for file in sorted((folder / "more").iterdir())[: WARM + work["alone"]]:
        began = time.perf_counter()
        moments = encode(engine, autoencoder, opened(file)[None].to(engine.device))
        np.save(folder / "alone" / f"{file.stem}.npy", moments.float().cpu().numpy())
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[WARM:]), **memory()}


def opened(file: Path) -> Tensor:
    """float32 [3,H,W] in [-1, 1] of a picture that needs no resizing."""
    return to_float(to_tensor(Image.open(file).convert("RGB")))


if __name__ == "__main__":
    if sys.argv[1:2] in (["--bare"], ["--alone"]):
        print(json.dumps({"--bare": bare, "--alone": alone}[sys.argv[1]](json.loads(sys.argv[2]))))
    else:
        main()
