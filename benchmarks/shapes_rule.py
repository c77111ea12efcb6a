"""A fixed rule that names what a 32x32 picture of the `shapes` data shows: thresholds, no network.

The figure is where the colour is strong: largest minus smallest channel above half
of the picture's largest. Its colour is the nearest of the four by mean; its shape
follows from how much of its bounding box it fills. The thresholds lie between the
fills of real training pictures, with and without noise of deviation 12 of 255.

Where sizes are told apart (`sizes: two`), it is large from a longer side of the
bounding box that lies halfway between the largest small and the smallest large
one drawn of its shape. The background is what is not the figure: dark or light by
its median. Drawn pictures are all named rightly, which a test holds.
"""

from typing import NamedTuple

import torch
from torch import Tensor

COLOURS = {"red": (226, 38, 46), "green": (34, 168, 72), "blue": (36, 84, 224), "yellow": (248, 204, 24)}
FILL = (("square", 0.86), ("circle", 0.65), ("triangle", 0.475), ("star", 0.0))
LARGE = {"square": 0.58, "circle": 0.655, "triangle": 0.625, "star": 0.56}  # over the picture's side


class Seen(NamedTuple):
    """What a picture shows, in the words of its caption."""

    size: str  # small or large
    colour: str
    shape: str
    background: str  # dark or light


def figure_of(image: Tensor) -> Tensor:
    """bool [H,W], where the figure of uint8 [3,H,W] is; nowhere when none stands out."""
    pixels = image.float()
    strength = pixels.amax(0) - pixels.amin(0)
    return strength > max(float(strength.max()) / 2, 30.0)


def see(image: Tensor) -> Seen | None:
    """What uint8 [3,H,W] shows; None when no figure stands out."""
    mask = figure_of(image)
    if not mask.any():
        return None
    pixels = image.float()
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    fill = float(mask.sum() / (height * width))
    mean = pixels[:, mask].mean(1)
    colour = min(COLOURS, key=lambda name: float((mean - torch.tensor(COLOURS[name])).square().sum()))
    shape = next(shape for shape, least in FILL if fill > least)
    size = "large" if max(height, width) / image.shape[-1] > LARGE[shape] else "small"
    around = pixels.mean(0)[~mask]
    return Seen(size, colour, shape, "dark" if len(around) and float(around.median()) < 128 else "light")


def name_shape(image: Tensor) -> str:
    """`red circle` and so on, of uint8 [3,H,W]; `nothing` when no figure stands out."""
    seen = see(image)
    return f"{seen.colour} {seen.shape}" if seen else "nothing"


def says(caption: str, seen: Seen | None) -> bool:
    """Whether a picture shows what a caption asks for; of what the caption does not name, anything is right."""
    words = set(caption.replace(",", " ").split())
    choices = (("small", "large"), tuple(COLOURS), tuple(name for name, _ in FILL), ("dark", "light"))
    asked = [next((word for word in each if word in words), "") for each in choices]
    return seen is not None and all(not word or word == found for word, found in zip(asked, seen, strict=True))


def map_iou(asked: Tensor, image: Tensor, names: list[str]) -> float:
    """How well uint8 [3,H,W] follows a label map uint8 [H,W] whose number 0 is the background: intersection over union, the mean over
    the classes that are in the map. The figure's pixels count for the class that its shape is named by `see`; `names` are the classes'."""
    seen = see(image)
    made = torch.zeros_like(asked)
    if seen is not None and seen.shape in names:
        made[figure_of(image)] = names.index(seen.shape)
    shares = [float(((asked == each) & (made == each)).sum() / ((asked == each) | (made == each)).sum()) for each in asked.unique()]
    return sum(shares) / len(shares)
