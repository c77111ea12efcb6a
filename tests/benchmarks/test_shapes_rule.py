"""The rule that judges made shapes names every drawn one rightly, and measures how well a map is followed."""

import importlib
from pathlib import Path

import pytest
import torch

from ldmctl.pictures.images import to_tensor
from ldmctl_plugins.datasets.shapes import Shapes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def rule(monkeypatch):
    """The module benchmarks/shapes_rule.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("shapes_rule")


def shapes(split="train", **keys) -> Shapes:
    return Shapes(Shapes.Config(type="shapes", **keys), split=split)


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_drawn_picture_is_named_rightly_in_all_four_words(rule, split):
    dataset = shapes(split, count=600, val_count=600, sizes="two")
    named = set()
    for index in range(len(dataset)):
        item, what = dataset[index], dataset.combination(index)
        seen = rule.see(to_tensor(item.picture))
        assert seen == (what.size, what.colour, what.shape, what.background)
        assert rule.says(item.text, seen)
        named.add(seen)
    assert len(named) == 4 * 4 * 2 * 2


def test_a_picture_that_shows_another_thing_is_not_what_was_asked(rule):
    seen = rule.Seen("small", "red", "circle", "dark")
    assert rule.says("a small red circle on a dark background", seen)
    assert rule.says("a red circle", seen)
    assert rule.says("small red circle, dark background", seen)
    for wrong in ("a large red circle on a dark background", "a small blue circle", "a red star", "a red circle on a light background"):
        assert not rule.says(wrong, seen)
    assert not rule.says("a red circle", None)
    assert rule.see(torch.full((3, 32, 32), 200, dtype=torch.uint8)) is None


def test_drawn_pictures_follow_their_own_maps(rule):
    dataset = shapes(count=200, maps=True)
    values = [
        rule.map_iou(torch.from_numpy(item.map), to_tensor(item.picture), dataset.map_classes)
        for item in map(dataset.__getitem__, range(200))
    ]
    assert min(values) > 0.9
    assert sum(values) / 200 > 0.98


def test_the_iou_of_a_map_is_what_it_is_by_hand(rule):
    names = ["background", "circle", "square", "triangle", "star"]
    asked = torch.zeros(32, 32, dtype=torch.uint8)
    asked[8:24, 8:24] = 2  # a square of 16
    image = torch.full((3, 32, 32), 30, dtype=torch.uint8)
    image[0, 8:24, 12:28] = 226  # the same four pixels to the right
    square, ground = 16 * 12 / (16 * 20), (1024 - 16 * 20) / (1024 - 16 * 12)
    assert rule.map_iou(asked, image, names) == pytest.approx((square + ground) / 2)
    asked[asked == 2] = 1  # and of another class
    assert rule.map_iou(asked, image, names) == pytest.approx(ground / 2)
    assert rule.map_iou(asked, torch.zeros(3, 32, 32, dtype=torch.uint8), names) == pytest.approx((1024 - 256) / 1024 / 2)
