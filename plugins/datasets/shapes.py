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

With `sizes: two` a third number tells small from large: the longer side of the
bounding box over that of the picture, at most 0.6 for small and at least 0.62 for large.
"""

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field, field_validator

from ldmctl.config import PluginConfig
from ldmctl.protocols import Example

from ._combinations import TEMPLATES, Combination, combinations, held_out

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
SPREAD = 0.05  # of the radius among small ones, and among large ones, where sizes are told apart
FINE = 4  # drawn this many times larger, then averaged: smooth edges
RIM = 0.44  # of a ring, over its radius
VERSION = 1  # of the drawing, part of every stamp

Shape = Literal["circle", "square", "triangle", "star", "cross", "ring"]
Colour = Literal["red", "green", "blue", "yellow", "purple", "cyan"]
Chance = Callable[[], float]


class Shapes:
    """One shape per picture; class and caption say its colour and form."""

    class Config(PluginConfig):
        count: int = Field(4096, ge=1, description="pictures to train on")
        val_count: int = Field(256, ge=1, description="pictures kept for validation")
        size: int = Field(32, ge=16, description="side of the drawn pictures, in pixels")
        seed: int = Field(0, description="another seed draws another set")
        shapes: list[Shape] = Field(["circle", "square", "triangle", "star"], min_length=1, description="forms drawn")
        colours: list[Colour] = Field(["red", "green", "blue", "yellow"], min_length=1, description="colours drawn")
        sizes: Literal["any", "two"] = Field(
            "any", description="any: of all sizes, which no caption names; two: small or large, nothing between, named in captions"
        )
        captions: int = Field(1, ge=1, le=len(TEMPLATES), description="captions of each picture, the same in other words")
        maps: bool = Field(False, description="pictures come with label maps: 0 is background, 1 the first of the forms drawn, and so on")
        held_out: float | list[str] = Field(
            0.0,
            description="combinations of form, colour, size and background that are never trained on, while val draws nothing else: a share of "
            "all, or words such as 'small red circle', each of which holds out all that have these words; 0: none",
        )

        @field_validator("held_out")
        @classmethod
        def _is_a_share(cls, asked: float | list[str]) -> float | list[str]:
            if not isinstance(asked, list) and not 0 <= asked < 1:
                raise ValueError("a share is at least 0 and below 1")
            return asked

    def __init__(self, config: Config, *, split: str):
        self.config, self.split = config, split
        self.classes = [f"{colour} {shape}" for shape in config.shapes for colour in config.colours]
        self.map_classes = ["background", *config.shapes] if config.maps else []
        self.has_maps = config.maps
        every = combinations(config.shapes, config.colours, ("small", "large") if config.sizes == "two" else ("",))
        held = held_out(every, config.held_out, config.seed)
        self.drawn = [each for each in every if (each in held) == (split != "train")] if held else []  # [] where all are, as they come
        self._drawing = hashlib.blake2b(f"{VERSION} {_of_drawing(config)}".encode(), digest_size=8)

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.config, self.split)

    def __len__(self) -> int:
        return self.config.count if self.split == "train" else self.config.val_count

    def __getitem__(self, index: int) -> Example:
        what, chance = self._what(index)
        figure = _figure(what, self.config.size, chance)
        mapped = figure.covers(self.config.size) * np.uint8(1 + self.config.shapes.index(what.shape)) if self.config.maps else None  # type: ignore[arg-type]
        return Example(figure.draw(self.config.size), self.classes.index(what.name), what.captions(1)[0], mapped)

    def stamp(self, index: int) -> str:
        """What decides the drawing: split, number and a hash of the config."""
        return f"{self.split}/{index}/{self._drawing.hexdigest()}"

    def captions(self, index: int) -> tuple[str, ...]:
        """As many as asked for, that of the example first."""
        return self._what(index)[0].captions(self.config.captions)

    def combination(self, index: int) -> Combination:
        """Form, colour, size and background of an item."""
        return self._what(index)[0]

    def _what(self, index: int) -> tuple[Combination, Chance]:
        """(what is drawn, the chance that decides the rest)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        chance = random.Random(f"{self.config.seed}/{self.split}/{index}").random
        if self.drawn:
            return self.drawn[int(chance() * len(self.drawn))], chance
        colour, shape = self.classes[int(chance() * len(self.classes))].split()
        background = "dark" if chance() < 0.5 else "light"
        size = ("small" if chance() < 0.5 else "large") if self.config.sizes == "two" else ""
        return Combination(shape, colour, size, background), chance


def _again(plugin: type[Shapes], config: Shapes.Config, split: str) -> Shapes:
    return plugin(config, split=split)


def _of_drawing(config: Shapes.Config) -> str:
    """The keys that decide how a picture looks, as JSON; the newer ones only where they are used, so that older stamps hold."""
    unused = {key for key in ("sizes", "held_out") if getattr(config, key) == type(config).model_fields[key].default}
    return config.model_dump_json(exclude={"count", "val_count", "captions", "maps", *unused})


@dataclass(frozen=True)
class Figure:
    """A shape in its place; lengths in pixels."""

    shape: str
    fill: tuple[int, int, int]
    ground: tuple[int, int, int]
    x: float
    y: float
    radius: float

    def draw(self, size: int) -> Image.Image:
        """The picture, RGB."""
        return self._paint(Image.new("RGB", (size * FINE, size * FINE), self.ground), self.fill)

    def covers(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """uint8 [size,size]: 1 where half of a pixel or more is the shape's, else 0."""
        return (np.asarray(self._paint(Image.new("L", (size * FINE, size * FINE)), 255)) >= 128).astype(np.uint8)

    def _paint(self, image: Image.Image, fill: tuple[int, int, int] | int) -> Image.Image:
        draw, x, y, radius = ImageDraw.Draw(image), self.x, self.y, self.radius
        if self.shape in OUTLINES:
            draw.polygon([((x + radius * dx) * FINE, (y + radius * dy) * FINE) for dx, dy in OUTLINES[self.shape]], fill=fill)
        else:
            box = [(x - radius) * FINE, (y - radius) * FINE, (x + radius) * FINE - 1, (y + radius) * FINE - 1]
            width = round(2 * radius * FINE) if self.shape == "circle" else round(RIM * radius * FINE)
            draw.ellipse(box, outline=fill, width=width)
        return image.reduce(FINE)


def _figure(what: Combination, size: int, chance: Chance) -> Figure:
    """Shade, size and place of what is drawn."""
    grey = round(18 + 34 * chance() if what.background == "dark" else 210 + 40 * chance())
    light = 0.92 + 0.14 * chance()
    red, green, blue = (min(255, round(each * light)) for each in COLOURS[what.colour])
    least, most = {"": (SMALLEST, LARGEST), "small": (SMALLEST, SMALLEST + SPREAD), "large": (LARGEST - SPREAD, LARGEST)}[what.size]
    radius = (least + (most - least) * chance()) * size
    room = size - 2 - 2 * radius
    x, y = 1 + radius + room * chance(), 1 + radius + room * chance()
    return Figure(what.shape, (red, green, blue), (grey, grey, grey + 5), x, y, radius)
