"""What a run makes of held-out pictures: image-to-image, inpainting, outpainting; and from noise: an interpolation, its classes, a colour guide.

python benchmarks/editing_picture.py --run runs/ldm --data mnist --out docs/editing-mnist.png [--steps 20] [--strength 0.6]

Rows from top to bottom: held-out pictures; from them at --strength; their right half painted anew; each drawn smaller with an eighth of the side
around it painted; an interpolation of two seeds; the classes in turn with guidance 2; samples that are to be red, or white where there are no colours, on the left.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl import api, registry
from ldmctl.config.presets import expand_data
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.shared import Image
from ldmctl.pictures.batches import evenly
from ldmctl.pictures.images import prepare
from ldmctl.pictures.png import grid, write_png

COLUMNS = 10


def main() -> None:
    """Make the rows, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/ldm")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.6)
    parser.add_argument("--first", type=int, default=0, help="skip so many held-out pictures")
    given = parser.parse_args()
    rows = torch.cat(rows_of(given))
    scale = max(1, 64 // rows.shape[-1])
    large = rows.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    write_png(given.out, grid(large, columns=COLUMNS), {"Description": " ".join((__doc__ or "").split("\n\n")[-1].split())})


def rows_of(given: argparse.Namespace) -> list[Tensor]:
    """uint8 [COLUMNS,C,H,W] of each row."""
    model = api.load(given.run)
    dataset: Any = registry.build("dataset", plugin_config("dataset", expand_data(given.data)["dataset"]), split="val")
    settings = Image.model_validate(model.header["image"]).model_copy(update={"crop": "center"})
    examples = [dataset[given.first + int(row)] for row in evenly(len(dataset) - given.first, COLUMNS)]
    real = torch.stack([prepare(each.picture, settings) for each in examples])
    side = real.shape[-1]
    half = torch.zeros(side, side, dtype=torch.bool)
    half[:, side // 2 :] = True
    named = {"label": [dataset.classes[each.label] for each in examples]} if model.classes else {}
    start: dict[str, Any] = {"start": list(real), "steps": given.steps, **named}
    free: dict[str, Any] = {"label": "none"} if model.classes else {}
    rows = [
        real,
        model.sample(COLUMNS, strength=given.strength, **start).images,
        model.sample(COLUMNS, mask=half, **start).images,
        model.sample(COLUMNS, outpaint=[side // 8] * 4, **start).images,
        model.sample(COLUMNS, interpolate=[3, 8], steps=given.steps, **free).images,
    ]
    if model.classes:
        rows.append(model.sample(COLUMNS, label=list(model.classes)[:COLUMNS], guidance=2.0, steps=given.steps).images)
    guide = {"type": "colour", "colour": "red" if real.shape[1] == 3 else "white", "region": [0, 0, 0.5, 1], "scale": 3}
    return [*rows, model.sample(COLUMNS, guides=[guide], steps=given.steps, **free).images]


if __name__ == "__main__":
    main()
