"""Pictures that do not differ are said to be so, before the first step and at the end, in place of advice to train longer."""

import pytest
import torch
from test_verdict import HOST, Blocks, noise, pictures, smooth

from ldmctl.evaluation.reconstruction import evaluate
from ldmctl.evaluation.sameness import Sameness, look_at
from ldmctl.evaluation.verdict import verdict
from ldmctl.latents.codec import Codec


def flat(count, *, alike=False):
    return [torch.full((3, 16, 16), 100 if alike else 20 * i, dtype=torch.uint8) for i in range(count)]


def judged(val, train=()):
    splits = {"val": pictures(val), **({"train": pictures(train)} if train else {})}
    return " ".join(verdict(evaluate(Codec(Blocks(), HOST), splits, None, HOST, workers=0, batch=5)))


SAME = noise(count=1) * 12
NEARLY = [(image.int() + (torch.arange(16) % 2 * (i % 2)).int()).clamp(0, 255).to(torch.uint8) for i, image in enumerate(SAME)]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (SAME, "All 12 pictures looked at are the same picture"),
        (NEARLY, "All 12 pictures looked at are the same picture"),
        (flat(12), "All 12 pictures looked at are each of a single colour"),
        (flat(12, alike=True), "All 12 pictures looked at are the same picture"),
        (flat(1), "The one picture looked at is of a single colour"),
    ],
)
def test_pictures_that_do_not_differ_are_said_and_longer_training_is_not_advised(images, said):
    words = judged(images)
    assert said in words and "Check the data" in words and "see to the pictures first" in words
    assert "loop.steps" not in words and "to raise it" not in words


@pytest.mark.parametrize("images", [noise(), smooth(), noise(count=1), [*flat(5), *noise(count=1)]])
def test_pictures_that_differ_are_judged_as_ever(images):
    words = judged(images)
    assert "looked at" not in words and "PSNR" in words


def test_one_held_out_picture_is_compared_with_those_of_training():
    assert "the same picture" in judged(SAME[:1], SAME)
    assert "the same picture" not in judged(SAME[:2], [*SAME[:3], *noise(seed=1)])


def test_some_pictures_of_one_colour_are_counted():
    assert "4 of the 10 pictures are each of a single colour" in judged([*flat(4), *noise(count=6)])
    assert "single colour" not in judged([*flat(1), *noise(count=11)])


def test_looking_ends_with_the_first_difference():
    found = look_at(pictures(noise()), Sameness())
    assert found.count == 2 and not found.sentence
    assert look_at(pictures([*flat(9, alike=True), *noise(count=9)]), Sameness(), count=6).sentence == ""
