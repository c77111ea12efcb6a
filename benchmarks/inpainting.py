"""How near to the original what is painted comes: PSNR within the mask, a perceptual distance and the seam, for each method, on held-out pictures.

python benchmarks/inpainting.py --run runs/ldm [--data shapes] [--count 32] [--steps 20] [--label none] [--weights SQUEEZENET.safetensors]
python benchmarks/inpainting.py --table        # the table of docs/guides/editing.md, from results/inpainting_*.json

Two masks: the right half, and a square of 3/8 of the side in the middle. The seam is the mean jump of neighbouring pixels across the
edge of the mask, relative to that of the originals: 1 is none. With --weights, of torchvision's squeezenet1_0, also the distance of its features
from the original's, of pictures that differ in the mask alone, enlarged to 64 pixels. `rebuilt` is the autoencoder alone. Each picture has its own
label unless one is given.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import RESULTS, describe, keep
from torch import Tensor

from ldmctl import api, registry
from ldmctl.config.presets import expand_data
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.shared import Image
from ldmctl.pictures.images import prepare, to_float

METHODS = [(method, sampler) for method in ("pigdm", "blend") for sampler in ("unipc", "ddim", "ddpm")] + [("repaint", "ddpm")]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/ldm")
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--label")
    parser.add_argument("--weights", help="weights of squeezenet1_0 for a perceptual distance")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table())
        return
    machine, model = describe(), api.load(given.run, precision="fp32")
    dataset = registry.build("dataset", plugin_config("dataset", expand_data(given.data)["dataset"]), split="val")
    settings = Image.model_validate(model.header["image"]).model_copy(update={"crop": "center"})
    examples = [dataset[index] for index in range(min(given.count, len(dataset)))]
    original = torch.stack([prepare(each.picture, settings) for each in examples])
    labels = given.label or [dataset.classes[each.label] if each.label >= 0 else "none" for each in examples]
    keys: dict[str, Any] = {"count": len(original), "start": list(original), "label": labels if model.classes else None}
    rebuilt = model.sample(**keys, strength=0).images
    distance = None
    if given.weights:
        config = plugin_config("perceptual", {"type": "features", "network": "squeezenet1_0", "weights": given.weights})
        distance = registry.build("perceptual", config, image_channels=original.shape[1])
    rows = []
    for name, free in masks(original.shape[-1]).items():
        rows.append({"mask": name, "method": "rebuilt", **judged(rebuilt, original, free, distance)})
        for method, sampler in METHODS:
            made = model.sample(**keys, mask=free, painting={"method": method}, sampler=sampler, steps=given.steps).images
            rows.append({"mask": name, "method": method, "sampler": sampler, **judged(made, original, free, distance)})
    keep(
        f"inpainting_{Path(given.data).name}",
        {"run": given.run, "count": len(original), "steps": given.steps, "label": given.label, "rows": rows},
        machine,
    )


def masks(side: int) -> dict[str, Tensor]:
    """bool [H,W], True where it is painted."""
    half, square = torch.zeros(2, side, side, dtype=torch.bool)
    half[:, side // 2 :] = True
    low, high = round(side * 5 / 16), round(side * 11 / 16)
    square[low:high, low:high] = True
    return {"right half": half, "square": square}


@torch.no_grad()
def judged(made: Tensor, original: Tensor, free: Tensor, distance: Any) -> dict[str, float]:
    """Mean PSNR within the mask in decibels, the jump across its edge relative to the originals', and the distance of pictures painted there."""
    error = (made.float() - original.float())[:, :, free].square().mean((1, 2)).clamp(min=1e-2)
    found = {"psnr": round((10 * torch.log10(255**2 / error)).mean().item(), 2), "seam": round(jump(made, free) / jump(original, free), 3)}
    if distance is None:
        return found
    pair = [
        F.interpolate(to_float(each), size=max(64, each.shape[-1]), mode="bicubic")
        for each in (torch.where(free, made, original), original)
    ]
    return {**found, "distance": round(distance(*pair).mean().item(), 4)}


def table() -> str:
    """A row for each set, mask and method."""
    lines = ["| pictures | mask | method | PSNR | distance | seam |", "|---|---|---|---|---|---|"]
    for file in sorted(RESULTS.glob("inpainting_*.json")):
        for row in json.loads(file.read_text())["rows"]:
            method = f"`{row['method']}`" + (f" with `{row['sampler']}`" if "sampler" in row else "")
            words = [file.stem.partition("_")[2], row["mask"], method, f"{row['psnr']:.1f} dB", f"{row.get('distance', float('nan')):.3f}"]
            lines.append(f"| {' | '.join(words)} | {row['seam']:.2f} |")
    return "\n".join(lines)


def jump(images: Tensor, free: Tensor) -> float:
    """The mean difference of pixels beside each other, one of them in the mask."""
    across = (images[..., 1:].float() - images[..., :-1].float()).abs().mean(1)[:, free[:, 1:] != free[:, :-1]]
    return across.mean().item()


if __name__ == "__main__":
    main()
