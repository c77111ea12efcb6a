"""Maps and pictures that samples are made by, opened and prepared as those were that the model learned from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from ldmctl.config.schemas.sample import Sample
from ldmctl.config.schemas.shared import Image
from ldmctl.errors import ConfigError, DataError
from ldmctl.latents.conditions import Known
from ldmctl.pictures.canvas import fitted, listed
from ldmctl.pictures.images import TURNS, opened
from ldmctl.pictures.maps import UNLABELLED, name_of_map, numbers, turn_of
from ldmctl.pictures.stored_maps import hold_labels

SAID = {"map": "maps", "picture": "pictures"}
LOOKED_AT = 64  # maps of a folder by which it is known whether they may mean something else
PURPOSE = {"map": "to take a map from", "picture": "to follow"}


def refuse_unseen(config: Sample, network: Any) -> None:
    """A ConfigError for a map or a picture that the model does not look at."""
    for slot, what in SAID.items():
        if getattr(config, slot) is not None and getattr(network, slot) is None:
            kind = {"map": "map", "picture": "lowres"}[slot]
            raise ConfigError(
                f"This model was trained without {what}, so --{slot} has nothing to show to it. Leave it away, or train one with "
                f"conditions.{slot}={kind}."
            )
    if config.picture is not None and network.picture.wants != "image":
        raise ConfigError("This model continues pictures around a mask: give the picture as --from, with --mask, in place of --picture.")


def paints_by_condition(config: Sample, network: Any) -> bool:
    """Whether the masked part is painted by a model that is told what is known, and not by a correction of its steps.

    A ConfigError where that is asked of a model that does not listen to it.
    """
    hears = getattr(network.picture, "wants", None) == "latent"
    named = "method" in config.painting.model_fields_set
    if config.painting.method == "condition" and not hears:
        raise ConfigError("painting.method=condition needs a model trained with conditions.picture=inpaint: take pigdm, or leave it away.")
    return hears and (config.painting.method == "condition" or not named)


def shown_of(config: Sample, model: Any, seeds: Sequence[int], sides: tuple[int, int]) -> dict[str, Known]:
    """The maps and the pictures of a batch of these seeds, by slot, on the device."""
    refuse_unseen(config, model.network)
    found = {}
    settings = Image.model_validate(model.header["image"]).model_copy(update={"crop": "center"})
    if config.map is not None and config.guidance != 0:
        maps = [map_of(file, settings, sides, model.network.map) for file in in_turn(config.map, seeds, PURPOSE["map"], model.listings)]
        found["map"] = Known(torch.stack(maps).to(model.engine.device))
    if config.picture is not None and config.guidance != 0:
        size = (-(-sides[1] // model.network.picture.smaller), -(-sides[0] // model.network.picture.smaller))
        pictures = [fitted(opened(file), size, settings) for file in in_turn(config.picture, seeds, PURPOSE["picture"], model.listings)]
        found["picture"] = Known(torch.stack(pictures).to(model.engine.device))
    return found


def doubtful_maps(config: Sample, model: Any, seeds: Iterable[int]) -> str:
    """A sentence on maps of black and white alone whose white may stand for class 1 and is read as no class, or on maps of classes for a model
    that reads shades; otherwise nothing."""
    classes: Sequence[str] = getattr(model.network.map, "classes", ())
    if config.map is None or config.guidance == 0 or model.network.map is None or len(classes) == 1:
        return ""
    files = dict.fromkeys(in_turn(config.map, list(islice(seeds, LOOKED_AT)), PURPOSE["map"], model.listings))
    if not classes:
        first = next(iter(files))
        return (
            f"The map {first} holds small numbers, as of classes, and this model learned from levels of 0 to 255: to it they are nearly black."
            if hold_labels(files)
            else ""
        )
    most = Image.model_validate(model.header["image"]).max_pixels
    if not (doubtful := [file for file in files if set(np.unique(numbers(file, labels=True, most=most)).tolist()) == {0, UNLABELLED}]):
        return ""
    more = f" and {len(doubtful) - 1} more hold" if doubtful[1:] else " holds"
    last = len(classes) - 1
    return (
        f"The map {doubtful[0]}{more} 0 and {UNLABELLED} alone, and this model knows the classes 0 ({classes[0]}) to {last} ({classes[-1]}): "
        f"{UNLABELLED} is read as a pixel of no class. Where white is meant as class 1 ({classes[1]}), save it as 1."
    )


def in_turn(given: str, seeds: Sequence[int], purpose: str, known: dict[tuple[str, str], list[Path]]) -> list[Path]:
    """The file of each seed, of one file or of those in a folder, which is looked through once: `known` keeps what was found."""
    if (given, purpose) not in known:
        known[given, purpose] = listed(given, purpose)
    files = known[given, purpose]
    return [files[seed % len(files)] for seed in seeds]


def map_of(file: Path, settings: Image, sides: tuple[int, int], conditioner: Any) -> Tensor:
    """uint8 [K,H,W] of a map as it is seen, as large as covers `sides` = (height, width), the middle of it; what does not fit the model is
    a DataError."""
    classes = conditioner.classes
    with opened(file) as image:
        layers = numbers(image, labels=bool(classes), most=settings.max_pixels)
        name, turn = name_of_map(image), turn_of(image, decoded=True)
    wanted = (conditioner.map_channels - 1) if not classes else 1
    if len(layers) != wanted:
        layers = layers.mean(axis=0, keepdims=True).round().astype(np.uint8) if wanted == 1 else np.repeat(layers[:1], wanted, axis=0)
    if classes and (beyond := sorted(set(np.unique(layers).tolist()) - {UNLABELLED, *range(len(classes))})):
        raise DataError(
            f"{name} has class {beyond[0]}, and this model knows {len(classes)} classes, counted from 0: {', '.join(classes[:20])}. "
            f"Pixels of no class have {UNLABELLED}."
        )
    seen = [Pillow.fromarray(layer) if turn == 1 else Pillow.fromarray(layer).transpose(TURNS[turn]) for layer in layers]
    (wide, high), (height, width) = seen[0].size, sides
    scale = max(width / wide, height / high)
    size = (max(width, round(wide * scale)), max(height, round(high * scale)))
    way = Pillow.Resampling.NEAREST if classes else Pillow.Resampling.BILINEAR
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    done = [np.asarray(each.resize(size, way))[top : top + height, left : left + width] for each in seen]
    return torch.from_numpy(np.stack(done))
