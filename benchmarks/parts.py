"""What whole pictures lose by statistics that an autoencoder learned on parts of pictures: PSNR of both by the same weights.

LDMCTL_DATA=FOLDER_WITH_clothing python benchmarks/parts.py RUN [RUN ...] [--count 48]      # run folders of fit-ae

Held-out pictures, spread evenly, are encoded and decoded as they are, and cut into parts of `image.patch` that are encoded and decoded one by
one, as in training. A part knows nothing of what lies beyond its border, so it should be worse than the whole. Where it is better, the network
meets other means and variances in a whole picture than it learned with: those of GroupNorm are of all that it is shown. The result keeps what it
had of other runs.
"""

import argparse
import json
from pathlib import Path

import torch
from machine import RESULTS, describe, keep
from torch import Tensor

from ldmctl.config.presets import compose
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.evaluation.metrics import psnr
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.pictures.batches import evenly
from ldmctl.pictures.images import to_float
from ldmctl.pictures.loading import open_pictures
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
AT_ONCE = 64  # parts in a forward


def parts_of(image: Tensor, side: int) -> Tensor:
    """[1,C,H,W] -> [N,C,side,side], row by row; H and W are multiples of `side`."""
    return image.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).reshape(-1, image.shape[1], side, side)


def stacked(parts: Tensor) -> Tensor:
    """[N,C,side,side] -> [1,C,N*side,side]: one picture of all parts, so that its error is theirs together."""
    return parts.transpose(0, 1).flatten(1, 2)[None]


@torch.no_grad()
def both(run: Path, count: int) -> tuple[str, dict]:
    """(what the run is, the means of the PSNR of whole pictures and of pictures that are put together from parts)."""
    autoencoder, header = load_autoencoder(run / "model.safetensors", CPU)
    config = compose(FitAE, config=str(run / "config.yaml"))[0]
    pictures, codec, side = open_pictures(config, "val"), Codec(autoencoder, CPU, at_once=AT_ONCE), config.image.trained
    found: dict[str, list[float]] = {"whole": [], "parts": []}
    for index in evenly(len(pictures), count).tolist():
        image = to_float(pictures.item(index))[None]
        small = parts_of(image, side)
        made = torch.cat([codec.reconstruct(some) for some in small.split(AT_ONCE)])
        found["whole"].append(float(psnr(codec.reconstruct(image), image).mean()))
        found["parts"].append(float(psnr(stacked(made), stacked(small)).mean()))
    means = {name: round(sum(values) / len(values), 3) for name, values in found.items()}
    norm = header["config"].get("norm", "group")
    name = f"{Path(str(config.data)).name} at {config.image.size}, parts of {side}, norm={norm}, after {header['step']} steps"
    return name, {**means, "lost": round(means["parts"] - means["whole"], 3), "pictures": len(found["whole"])}


def main() -> None:
    """Every run that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--count", type=int, default=48)
    given = parser.parse_args()
    machine, kept = describe(), RESULTS / "parts.json"
    found = json.loads(kept.read_text())["runs"] if kept.exists() else {}
    keep("parts", {"runs": {**found, **dict(both(run, given.count) for run in given.runs)}}, machine)


if __name__ == "__main__":
    main()
