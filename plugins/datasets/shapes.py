"""Coloured shapes, drawn when asked for: the data set that needs no files and no network.

Item i of a split depends on (seed, split, i) alone. Two numbers tell the classes
apart again, so that a fixed rule can judge generated pictures without a network:

colour  Only the shape is saturated; backgrounds are almost grey. A pixel belongs to
        the shape where its largest channel exceeds its smallest by half of what the
        most saturated pixel shows. The mean of these pixels is nearest to its own
        colour in COLOURS.
shape   The share of its bounding box that the shape fills, counted in those pixels
        (FILL, the means at 32x32): square 1, circle 0.79, triangle 0.54, star 0.37.
        No drawn picture crosses the thresholds 0.92, 0.66 and 0.48 between them.
        Of the forms not drawn by default a cross fills 0.56 and a ring 0.54, the
        ring hollow at its center. Shapes stand upright and lie wholly inside the
        picture, at least a pixel from its edge.
"""

import hashlib
import math
import random
from collections.abc import Callable
from typing import Literal

from PIL import Image, ImageDraw
from pydantic import Field

from ldmctl.config import PluginConfig
from ldmctl.protocols import Example

COLOURS = {
    "red": (226, 38, 46),
    "green": (34, 168, 72),
    "blue": (36, 84, 224),
    "yellow": (248, 204, 24),
    "purple": (150, 44, 190),
    "cyan": (30, 190, 214),
}
OUTLINES: dict[str, list[tuple[float, float]]] = {  # corners in units of the radius, y downwards
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0, -0.92), (1, 0.88), (-1, 0.88)],
    "star": [(r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k in range(10) for r in [0.35 if k % 2 else 1]],
    "cross": [
        (x / 3, y / 3)
        for x, y in [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]
    ],
}
FILL = {"circle": 0.79, "square": 1.0, "triangle": 0.54, "star": 0.37, "cross": 0.56, "ring": 0.54}
SMALLEST, LARGEST = 0.23, 0.41  # radius over the picture's side
FINE = 4  # drawn this many times larger, then averaged: smooth edges
RIM = 0.44  # of a ring, over its radius
VERSION = 1  # of the drawing, part of every stamp

Shape = Literal["circle", "square", "triangle", "star", "cross", "ring"]
Colour = Literal["red", "green", "blue", "yellow", "purple", "cyan"]


class Shapes:
    """One shape per picture; class and caption say its colour and form."""

    class Config(PluginConfig):
        count: int = Field(4096, ge=1, description="pictures to train on")
        val_count: int = Field(256, ge=1, description="pictures kept for validation")
        size: int = Field(32, ge=16, description="side of the drawn pictures, in pixels")
        seed: int = Field(0, description="another seed draws another set")
        shapes: list[Shape] = Field(["circle", "square", "triangle", "star"], min_length=1, description="forms drawn")
        colours: list[Colour] = Field(["red", "green", "blue", "yellow"], min_length=1, description="colours drawn")

    def __init__(self, config: Config, *, split: str):
        self.config, self.split = config, split
        self.classes = [f"{colour} {shape}" for shape in config.shapes for colour in config.colours]
        self._drawing = hashlib.blake2b(f"{VERSION} {config.model_dump_json(exclude={'count', 'val_count'})}".encode(), digest_size=8)

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.config, self.split)

    def __len__(self) -> int:
        return self.config.count if self.split == "train" else self.config.val_count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chance = random.Random(f"{self.config.seed}/{self.split}/{index}").random
        label = int(chance() * len(self.classes))
        colour, shape = self.classes[label].split()
        dark = chance() < 0.5
        picture = _draw(shape, COLOURS[colour], self.config.size, dark=dark, chance=chance)
        return Example(picture, label, f"a {colour} {shape} on a {'dark' if dark else 'light'} background")

    def stamp(self, index: int) -> str:
        """What decides the drawing: split, number and a hash of the config."""
        return f"{self.split}/{index}/{self._drawing.hexdigest()}"


def _again(plugin: type[Shapes], config: Shapes.Config, split: str) -> Shapes:
    return plugin(config, split=split)


def _draw(shape: str, colour: tuple[int, int, int], size: int, *, dark: bool, chance: Callable[[], float]) -> Image.Image:
    grey = round(18 + 34 * chance() if dark else 210 + 40 * chance())
    light = 0.92 + 0.14 * chance()
    fill = (min(255, round(colour[0] * light)), min(255, round(colour[1] * light)), min(255, round(colour[2] * light)))
    radius = (SMALLEST + (LARGEST - SMALLEST) * chance()) * size
    room = size - 2 - 2 * radius
    x, y = 1 + radius + room * chance(), 1 + radius + room * chance()
    image = Image.new("RGB", (size * FINE, size * FINE), (grey, grey, grey + 5))
    draw = ImageDraw.Draw(image)
    if shape in OUTLINES:
        draw.polygon([((x + radius * dx) * FINE, (y + radius * dy) * FINE) for dx, dy in OUTLINES[shape]], fill=fill)
    else:
        box = [(x - radius) * FINE, (y - radius) * FINE, (x + radius) * FINE - 1, (y + radius) * FINE - 1]
        width = round(2 * radius * FINE) if shape == "circle" else round(RIM * radius * FINE)
        draw.ellipse(box, outline=fill, width=width)
    return image.reduce(FINE)
