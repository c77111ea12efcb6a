"""What a dataset promises, held where the host asks: a plugin that gives something else is named, and not taken for broken pictures."""

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ldmctl import attribution
from ldmctl.errors import with_article
from ldmctl.protocols import Dataset, Example


def opened_as_promised(dataset: Dataset) -> Dataset:
    """The dataset, if its length, its classes and what it says of itself are of the kinds that it promises; else a PluginError."""
    for method in ("__len__", "__getitem__", "stamp"):
        expect(callable(getattr(type(dataset), method, None) or getattr(dataset, method, None)), dataset, f"it has no {method}")
    length = dataset.__len__()  # len() would raise of itself
    expect(_is_whole(length) and operator.index(length) >= 0, dataset, f"__len__ gave {length!r:.80}, not how many items there are")
    expect(_are_words(dataset.classes), dataset, f"classes are {dataset.classes!r:.80}, not a list of strings")
    for name in ("remarks", "warnings", "map_classes"):
        found = getattr(dataset, name, None)
        expect(found is None or _are_words(found), dataset, f"{name} are {found!r:.80}, not a list of strings")
    counts = getattr(dataset, "counts", None)
    expect(
        counts is None or (isinstance(counts, Mapping) and all(map(_is_whole, counts.values()))),
        dataset,
        f"counts are {counts!r:.80}, not a mapping to whole numbers",
    )
    return dataset


def item_as_promised(dataset: Dataset, index: int, example: Any) -> Example:
    """The example, if it is one with a picture, a caption and a map, or none; else a PluginError. Its label is held by `label_as_promised`."""
    expect(isinstance(example, Example), dataset, f"item {index} is {with_article(type(example).__name__)}, not an Example")
    expect(
        is_picture(example.picture),
        dataset,
        f"the picture of item {index} is {_described(example.picture)}, not a Pillow image or uint8 [C,H,W]",
    )
    what = f"the map of item {index} is {_described(example.map)}, not a Pillow image, its path, uint8 [H,W] or [K,H,W]"
    expect(example.map is None or is_map(example.map), dataset, what)
    expect(isinstance(example.text, str), dataset, f"the caption of item {index} is {example.text!r:.80}, not a string")
    found: Example = example
    return found


def label_as_promised(dataset: Dataset, index: int, label: Any) -> int:
    """The label as a plain number; one that is no class's is a PluginError."""
    classes = len(dataset.classes)
    holds = _is_whole(label) and -1 <= operator.index(label) < classes
    expect(holds, dataset, f"item {index} has the label {label!r}, and there are {classes} classes, counted from 0; -1 is none")
    return operator.index(label)


def stamp_as_promised(dataset: Dataset, index: int) -> str:
    """The stamp of an item; anything but a string is a PluginError."""
    stamp: Any = dataset.stamp(index)
    expect(isinstance(stamp, str) and stamp, dataset, f"the stamp of item {index} is {stamp!r:.80}, not a string")
    return str(stamp)


def note_as_promised(dataset: Any, index: int) -> tuple[int, str]:
    """(label, caption) that a dataset with a `note` gives; anything else is a PluginError."""
    note = dataset.note(index)
    pair = isinstance(note, tuple | list) and len(note) == 2 and isinstance(note[1], str)
    expect(pair, dataset, f"the note of item {index} is {note!r:.80}, not a label and a caption")
    return label_as_promised(dataset, index, note[0]), note[1]


def is_picture(picture: Any) -> bool:
    """Whether it is a Pillow image, or numbers uint8 [C,H,W] of 1 to 4 channels, of torch or of NumPy."""
    if isinstance(picture, Image.Image) or _is_made_later(picture):
        return True
    shape, kind = getattr(picture, "shape", None), str(getattr(picture, "dtype", "")).removeprefix("torch.")
    return kind == "uint8" and shape is not None and len(shape) == 3 and 1 <= shape[0] <= 4 and min(shape) > 0


def is_map(given: Any) -> bool:
    """Whether it is a Pillow image, the path of one, or numbers uint8 [H,W] or [K,H,W]."""
    shape, kind = getattr(given, "shape", None), str(getattr(given, "dtype", "")).removeprefix("torch.")
    numbers = kind == "uint8" and shape is not None and len(shape) in (2, 3) and min(shape) > 0
    return numbers or _is_made_later(given) or isinstance(given, Image.Image | str | Path)


def expect(holds: Any, dataset: Any, complaint: str) -> None:
    """A PluginError that names the plugin of the whole set, unless it holds."""
    attribution.expect(holds, getattr(dataset, "chosen_from", dataset), complaint)


def _described(picture: Any) -> str:
    """`None`, `of type str`, `uint8 [16, 16, 3]`."""
    if hasattr(picture, "shape") and hasattr(picture, "dtype"):
        return f"{str(picture.dtype).removeprefix('torch.')} {list(picture.shape)}"
    return "None" if picture is None else f"of type {type(picture).__name__}"


def _is_made_later(given: Any) -> bool:
    """Whether it makes its numbers when NumPy asks for them; whoever does holds what comes."""
    return hasattr(given, "__array__") and not hasattr(given, "dtype")


def _is_whole(number: Any) -> bool:
    try:
        operator.index(number)
    except (TypeError, ValueError, RuntimeError):  # such as a tensor of several
        return False
    return True


def _are_words(names: Any) -> bool:
    return isinstance(names, Sequence) and not isinstance(names, str | bytes) and all(isinstance(name, str) for name in names)
