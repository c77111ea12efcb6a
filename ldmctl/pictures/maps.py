"""Maps that belong to pictures (classes per pixel, edges, depth), brought through the same geometry: each pixel stays on its picture's.

A label map holds numbers of classes, 0 to 254, and 255 where a pixel has none. Its
numbers are never mixed: it is resized to the nearest pixel. All other maps are
continuous, 0 to 255, and resized through an antialiased filter without ringing.
`images.finish` with the same seed crops and flips a prepared map and its picture alike.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldmctl.errors import DataError
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.choosing import name_of, named
from ldmctl.pictures.images import finish
from ldmctl.pictures.opening import MOST, opened
from ldmctl.pictures.pillow import TURNS, Settings
from ldmctl.pictures.promised import item_as_promised
from ldmctl.pictures.stored_maps import UNLABELLED, Frame, frame_of, name_of_map, numbers, turn_for, turn_of

__all__ = ["UNLABELLED", "map_of", "name_of_map", "numbers", "prepare_map", "turn_of"]


def prepare_map(given: Any, picture: Frame | tuple[int, int], settings: Settings, *, labels: bool, name: str = "") -> Tensor:
    """uint8 [K,h,w] of a map, as `images.prepare` makes of its picture: shorter side `size`, and the center of it unless the crop is random.

    `picture` is its frame, or its width and height. A map may be smaller or larger than its picture, but not of another shape;
    it is turned with it, unless it lies upright already. `name` is the picture's. A DataError names what cannot be used.
    """
    frame = picture if isinstance(picture, Frame) else Frame(picture)
    given = opened(given) if isinstance(given, str | Path) else given
    layers = [Image.fromarray(layer) for layer in numbers(given, labels=labels, most=getattr(settings, "max_pixels", MOST))]
    turn = turn_for(given, layers[0].size, frame, name)
    way = Image.Resampling.NEAREST if labels else Image.Resampling.BILINEAR
    stored = frame.upright[::-1] if turn >= 5 else frame.upright
    done = []
    for layer in layers:
        layer = layer if layer.size == stored else layer.resize(stored, way)
        layer = layer.transpose(TURNS[turn]) if turn in TURNS else layer
        target = frame.resized(settings.size)
        done.append(torch.from_numpy(np.array(layer if layer.size == target else layer.resize(target, way))))
    array = torch.stack(done)
    return finish(array, settings, None) if settings.crop == "center" else array


def map_of(pictures: Pictures, index: int, *, labels: bool | None = None) -> Tensor | None:
    """uint8 [K,size,size], the map of an item with the center crop and no flip, as its picture is encoded; None where it has none.

    `labels` says whether it holds numbers of classes; by default it does where the data set names them. A DataError names a file that cannot be read,
    or holds the number of no class.
    """
    dataset = pictures.dataset
    example = item_as_promised(dataset, index, dataset[index])
    if example.map is None:
        return None
    classes = list(getattr(dataset, "map_classes", ()))
    labels = bool(classes) if labels is None else labels
    frame = frame_of(example.picture, pictures.settings)
    prepared = prepare_map(example.map, frame, pictures.settings, labels=labels, name=name_of(dataset, index))
    if labels and classes:
        refuse_unknown(prepared, classes, name_of_map(example.map))
    return finish(prepared, pictures.settings, None)


def of_one_kind(prepared: Tensor | None, channels: int, stamp: str) -> Tensor | None:
    """The map of a picture, or None without one; a DataError where it has other channels than the first one."""
    if prepared is not None and len(prepared) != channels:
        raise DataError(
            f"The map of {named(stamp)} has {len(prepared)} channel{'s' * (len(prepared) > 1)}, and the first one has {channels}: a run listens "
            "to maps of one kind. Save all of them in grey, or in colour."
        )
    return prepared


def refuse_unknown(prepared: Tensor, classes: Sequence[str], name: str) -> None:
    """A DataError where a label map holds a number that is no class's and not UNLABELLED."""
    if unknown := [number for number in prepared.unique().tolist() if len(classes) <= number != UNLABELLED]:
        those = f"number{'s' if len(unknown) > 1 else ''} {', '.join(map(str, unknown[:5]))}"
        raise DataError(
            f"{name} holds the {those}, and there are {len(classes)} classes, from 0 ({classes[0]}) to {len(classes) - 1} ({classes[-1]}); "
            f"{UNLABELLED} is a pixel of none."
        )
