"""A command says once, before it starts, how many pictures there are, what is known of them and what was left out."""

from types import SimpleNamespace

import numpy as np
import pytest

from ldmctl.console import Console
from ldmctl.errors import DataError
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.choosing import Chosen, large_enough
from ldmctl.pictures.introduction import datasets, introduce, summary
from ldmctl.protocols import Example

SETTINGS = SimpleNamespace(size=8, channels=3, crop="center", flip=False, background="white")


class Plain:
    """A data set as it was before there were remarks."""

    classes = ["a", "b"]

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        raise AssertionError("no picture is opened to count it")

    def stamp(self, index):
        return str(index)


class Noting(Plain):
    """One that knows its items without opening them."""

    def note(self, index):
        return index % 2 - 1, "caption" if index < 3 else ""


class Talking(Plain):
    """One that says what it found."""

    def __init__(self, count):
        super().__init__(count)
        self.remarks = ["Found in all splits.", f"There are {count:,}."]
        self.warnings = ["One was left out."]
        self.counts = {"labels": 1200, "captions": 1}


class Broken(Plain):
    """One that cannot tell."""

    def note(self, index):
        raise DataError("not today")


class Sized(Noting):
    """One with pictures of two sizes and with counts, some with maps."""

    def __init__(self, count):
        super().__init__(count)
        self.counts = {"labels": count // 2, "captions": 3, "maps": 2}

    def __getitem__(self, index):
        return Example(np.zeros((3, 4 + index, 20), np.uint8))

    def map_stamp(self, index):
        return "map" if index in (0, 9) else ""


def splits(kind, train=1234, val=1):
    return {"train": Pictures(kind(train), SETTINGS), "val": Pictures(kind(val), SETTINGS)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Plain, "train: 1,234 pictures, 2 classes; val: 1 picture, 2 classes."),
        (Broken, "train: 1,234 pictures, 2 classes; val: 1 picture, 2 classes."),
        (Noting, "train: 1,234 pictures, 2 classes, 617 labels, 3 captions; val: 1 picture, 2 classes, 0 labels, 1 caption."),
        (Talking, "train: 1,234 pictures, 2 classes, 1,200 labels, 1 caption; val: 1 picture, 2 classes, 1,200 labels, 1 caption."),
    ],
)
def test_any_data_set_is_counted_as_far_as_it_can_be_without_opening_a_picture(kind, words):
    assert summary(datasets(splits(kind))) == words


def test_pictures_that_are_left_out_are_counted_with_nothing_of_theirs():
    chosen = large_enough(Sized(10), 6, "train")
    assert chosen.counts == {"labels": 4, "captions": 1, "maps": 1}
    words = "train: 8 pictures, 2 classes, 4 labels, 1 caption, 1 map."
    assert summary({"train": chosen}) == words


@pytest.mark.parametrize("kind", [Plain, Broken, Talking, Noting])
def test_what_cannot_be_known_of_pictures_that_are_left_out_is_not_counted(kind):
    chosen = Chosen(kind(4), [1, 2, 3], [{"index": 0}])
    counted = "2 labels, 2 captions" if kind is Noting else ""
    assert summary({"train": chosen}) == f"train: 3 pictures, 2 classes{counted and ', ' + counted}."


def test_remarks_and_warnings_are_said_once_and_on_the_first_rank_alone(capfd):
    introduce(splits(Talking), Console())
    said = capfd.readouterr().err.splitlines()
    assert said[:3] == ["Found in all splits.", "There are 1,234.", "There are 1."] and said[-1] == "warning: One was left out."
    introduce(splits(Talking), Console(quiet=True))
    assert capfd.readouterr().err.splitlines() == ["warning: One was left out."]
    introduce(splits(Talking), Console(), leads=False)
    assert capfd.readouterr().err == ""


def test_a_data_set_without_captions_of_its_own_keeps_none():
    assert Pictures(Noting(3), SETTINGS).captions(0) == () and Example(None).text == ""
