"""What a dataset promises: the same items each time and in every process."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ldmctl.pictures import images, maps
from ldmctl.pictures.promised import opened_as_promised
from ldmctl.protocols import Example
from ldmctl.testing.promises import calling, expect, maker, promise
from ldmctl.testing.workers import check_workers, content, open_files


@promise("dataset")
def check_dataset(cls: type, /, **options: Any) -> None:
    """Items, labels and stamps of both splits, the same each time and in every process."""
    before = open_files()
    train, val = (maker(cls, options, split=split)() for split in ("train", "val"))
    for each in (train, val):
        opened_as_promised(each)
    expect(len(train) > 0, "there is nothing to train on")
    expect(list(train.classes) == list(val.classes), "the two splits name different classes")
    names = list(train.classes)
    expect(all(isinstance(name, str) for name in names) and len(set(names)) == len(names), "classes must be different strings")
    mapped = [list(getattr(each, "map_classes", ())) for each in (train, val)]
    expect(mapped[0] == mapped[1], "the two splits name different map_classes")
    expect(all(isinstance(name, str) for name in mapped[0]) and len(mapped[0]) <= 255, "map_classes must be at most 255 strings")
    copy = maker(cls, options, split="train")()
    with calling("pickling"):
        sent = pickle.loads(pickle.dumps(train))
    for dataset in (train, val):
        for index in sorted({0, len(dataset) // 2, len(dataset) - 1} & set(range(len(dataset)))):
            _check_item(dataset, index, len(names))
    for index in {0, len(train) - 1}:
        for other, what in ((copy, "made again"), (sent, "sent to a worker")):
            expect(other.stamp(index) == train.stamp(index), f"the stamp of item {index} changes when the dataset is {what}")
            expect(_pixels(other[index]).equal(_pixels(train[index])), f"item {index} changes when the dataset is {what}")
    with calling("pickling, after items were read,"):
        again = pickle.loads(pickle.dumps(train))
    expect(content(again[0]) == content(train[0]), "item 0 changes when the dataset is sent to a worker after it was read")
    check_workers(train, before)
    stamps = [train.stamp(index) for index in range(min(len(train), 50))]
    expect(len(set(stamps)) == len(stamps), "two items have the same stamp")


def _check_item(dataset: Any, index: int, classes: int) -> None:
    with calling(f"item {index}"):
        item, stamp = dataset[index], dataset.stamp(index)
    expect(isinstance(item, Example), f"item {index} is {type(item).__name__}, not an Example")
    raw = isinstance(item.picture, Image.Image) or (getattr(item.picture, "ndim", 0) == 3 and str(item.picture.dtype).endswith("uint8"))
    expect(raw, f"the picture of item {index} is neither a Pillow image nor uint8 [C,H,W]")
    expect(isinstance(item.label, int) and -1 <= item.label < classes, f"item {index} has label {item.label!r} of {classes} classes")
    expect(isinstance(item.text, str), f"item {index} has a caption of type {type(item.text).__name__}")
    expect(isinstance(stamp, str) and stamp, f"item {index} has stamp {stamp!r}, not a string")
    if hasattr(dataset, "content"):
        with calling(f"the content of item {index}"):
            hashed = dataset.content(index)
        expect(isinstance(hashed, str), f"the content of item {index} is {hashed!r:.80}, not a string")
    if hasattr(dataset, "note"):
        with calling(f"the note of item {index}"):
            note = dataset.note(index)
        expect(
            note == (item.label, item.text), f"the note of item {index} is {note!r}, not {(item.label, item.text)!r} as its Example says"
        )
    if hasattr(dataset, "captions"):
        with calling(f"the captions of item {index}"):
            _check_captions(dataset.captions(index), item.text, index)
    if item.map is not None:
        _check_map(dataset, item, index)
    expect(_pixels(item).equal(_pixels(dataset[index])), f"item {index} is not the same the second time")


def _check_map(dataset: Any, item: Example, index: int) -> None:
    expect(getattr(dataset, "has_maps", True), f"item {index} has a map, and has_maps says that none has one")
    classes = list(getattr(dataset, "map_classes", ()))
    if not isinstance(item.map, Image.Image | str | Path):
        with calling(f"the map of item {index}"):
            shape, kind = list(np.shape(item.map)), str(np.asarray(item.map).dtype)
        expect(
            len(shape) in (2, 3) and kind == "uint8",
            f"the map of item {index} is neither a Pillow image nor uint8 [H,W] or [K,H,W], but {kind} {shape}",
        )
    with calling(f"the map of item {index}"):
        array = maps.numbers(item.map, labels=bool(classes))
        maps.turn_for(item.map, (array.shape[2], array.shape[1]), maps.frame_of(item.picture, None))
    beyond = sorted(set(array.flatten().tolist()) - {*range(len(classes)), maps.UNLABELLED}) if classes else []
    expect(
        not beyond,
        f"the map of item {index} holds the numbers {beyond[:5]}, and there are {len(classes)} map_classes; {maps.UNLABELLED} is none",
    )
    expect(
        np.array_equal(array, maps.numbers(dataset[index].map, labels=bool(classes))),
        f"the map of item {index} is another one the second time",
    )
    if hasattr(dataset, "map_stamp"):
        with calling(f"the map stamp of item {index}"):
            stamp = dataset.map_stamp(index)
        expect(isinstance(stamp, str) and stamp, f"item {index} has a map with the stamp {stamp!r}, not a string")


def _check_captions(found: Any, text: str, index: int) -> None:
    several = isinstance(found, Sequence) and not isinstance(found, str | bytes) and all(isinstance(each, str) for each in found)
    expect(several, f"the captions of item {index} are {found!r:.80}, not a sequence of strings")
    expect(all(found) and len(set(found)) == len(found), f"the captions of item {index} hold an empty or a repeated one")
    first = found[0] if found else ""
    expect(first == text or len(found) < 2, f"the first of the captions of item {index} is {first!r}, not its text {text!r}")


def _pixels(item: Example) -> Tensor:
    with calling("decoding the picture"):
        return images.to_tensor(images.load(item.picture, channels=3))
