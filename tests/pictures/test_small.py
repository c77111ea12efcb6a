"""Small pictures: enlarged with a word, or left out on purpose, which is no fault."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl.cli.app import run
from ldmctl.config.documents import read_config
from ldmctl.config.schemas.shared import Image as Section
from ldmctl.errors import DataError
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import Facts
from ldmctl.pictures.tally import Tally, remarks, together
from ldmctl.pictures.workers import batches
from ldmctl.protocols import Example

TINY = Path(__file__).parents[1] / "tiny" / "fit-ae.yaml"


class Sized:
    """Pictures of these sizes, each of its own grey; None is an unreadable one."""

    def __init__(self, sizes):
        self.sizes, self.classes, self.root = sizes, ["one"], "somewhere"

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        if self.sizes[index] is None:
            raise DataError(f"{index} is broken")
        file = io.BytesIO()
        Image.new("L", self.sizes[index], index).save(file, "PNG")
        return Example(Image.open(file), 0, f"number {index}")

    def stamp(self, index):
        return f"{index}.png:1:2"


class Noted(Sized):
    """The same, whose notes need no opening."""

    def note(self, index):
        return 0, f"note {index}"

    def captions(self, index):
        return [f"note {index}", f"words {index}"]

    def content(self, index):
        return f"hash {index}"


def of(sizes, kind=Sized, **keys):
    return Pictures(kind(sizes), Section(size=8, channels=1, **keys))


LARGE, SMALL = (20, 30), (30, 9)


def test_small_ones_are_left_out_and_named_and_the_rest_are_what_there_is():
    whole = of([LARGE, SMALL, LARGE, SMALL, SMALL, LARGE], smallest=10)
    assert len(whole) == 3 and [whole.stamp(i) for i in range(3)] == ["0.png:1:2", "2.png:1:2", "5.png:1:2"]
    assert [whole.item(i).unique().tolist() for i in range(3)] == [[0], [2], [5]]
    assert whole.note(1) == (0, "number 2") and of([SMALL, LARGE], Noted, smallest=10).note(0) == (0, "note 1")
    assert next((row["file_name"], row["reason"]) for row in whole.left_out) == ("1.png", "It is 30x9 pixels, and image.smallest is 10.")
    assert whole.bad == [] and whole.classes == ["one"] and whole.dataset.root == "somewhere"


def test_what_is_asked_of_an_item_by_its_number_is_that_of_the_item_that_stayed():
    whole = of([SMALL, LARGE], Noted, smallest=10)
    assert (whole.captions(0), whole.content(0), whole.note(0)) == (("note 1", "words 1"), "hash 1", (0, "note 1"))
    assert not of([SMALL, LARGE], smallest=10).hashed


def test_left_out_ones_do_not_count_as_unreadable_and_unreadable_ones_still_do():
    whole = of([*[SMALL] * 50, *[LARGE] * 49, None], smallest=10)
    batch = next(batches(whole, [[(i, i) for i in range(50)]]))
    assert len(batch.used) == 50 and [row["reason"] for row in whole.bad] == ["99 is broken"]
    with pytest.raises(DataError, match="2 of 10 pictures cannot be used"):
        list(batches(of([*[SMALL] * 90, *[LARGE] * 8, None, None], smallest=10), [[(i, i) for i in range(10)]]))


def test_nothing_takes_the_place_of_what_is_left_out():
    whole = of([LARGE, *[SMALL] * 20, LARGE], smallest=10)
    batch = next(batches(whole, [[(0, 0), (1, 1)]]))
    assert batch.used == batch.index == [0, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_see_the_same_pictures(workers):
    whole = of([SMALL, LARGE, SMALL, LARGE], smallest=10)
    assert [batch.image.unique().tolist() for batch in batches(whole, [[(0, 0)], [(1, 1)]], workers=workers)] == [[1], [3]]
    assert whole.tally.seen == 2
    assert torch.equal(pickle.loads(pickle.dumps(whole)).item(0), whole.item(0))


def test_a_set_of_small_ones_alone_is_an_error_that_says_how_large_they_are():
    with pytest.raises(DataError, match=r"All 3 pictures of the train split are smaller than image\.smallest=10: the largest has 9 pixels"):
        of([SMALL] * 3, smallest=10)
    assert len(Pictures(Sized([SMALL] * 3), Section(smallest=10), split="val")) == 0


def test_by_default_no_picture_is_opened_to_learn_its_size():
    class Shut(Sized):
        def __getitem__(self, index):
            raise AssertionError("opened")

    assert len(of([LARGE], Shut)) == 1


# -- what is said --------------------------------------------------------------


def test_enlarged_pictures_are_counted_once_with_the_smallest():
    whole = of([LARGE, (7, 40), (31, 5), LARGE])
    for _ in range(2):
        list(batches(whole, [[(i, i) for i in range(4)]]))
    (said,) = remarks([whole.tally.noticed], 8)
    assert (
        said.startswith("2 of 4 pictures are smaller than 8 pixels and were enlarged; the smallest is 31x5.") and "image.smallest" in said
    )


def test_large_pictures_are_not_spoken_of():
    whole = of([LARGE, (8, 8)])
    list(batches(whole, [[(0, 0), (1, 1)]]))
    assert remarks([whole.tally.noticed], 8) == []


def test_thousands_are_written_as_people_read_them():
    tally = Tally(5000, 128)
    for index in range(5000):
        tally.add(index, Facts((20, 31) if index == 7 else (100, 100) if index < 312 else (128, 200)))
    assert remarks([tally.noticed], 128)[0].startswith(
        "312 of 5,000 pictures are smaller than 128 pixels and were enlarged; the smallest is 20x31."
    )


def test_what_several_ranks_saw_is_counted_once():
    ranks = [Tally(4, 8), Tally(4, 8)]
    for tally, seen in zip(ranks, ([0, 1], [1, 2]), strict=True):
        for index in seen:
            tally.add(index, Facts((5, 5 + index), "it is damaged" if index == 2 else ""))
    said = remarks([together([tally.noticed for tally in ranks])], 8)
    assert said[0].startswith("3 of 3 pictures seen are smaller than 8 pixels and were enlarged; the smallest is 5x5.")
    assert said[1].startswith("1 of 3 pictures seen has a colour profile that could not be applied (it is damaged)")


# -- commands ------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """40 pictures, of which every fourth is small, and one with a broken profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    for split, count in (("train", 40), ("val", 4)):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for index in range(count):
            sides = (12, 13) if index % 4 == 1 else (24, 20)
            noise = np.random.default_rng([index, count]).integers(0, 256, (*sides, 3), dtype=np.uint8)
            options = {"icc_profile": b"rubbish"} if (split, index) == ("train", 3) else {}
            Image.fromarray(noise).save(tmp_path / "photos" / split / f"{index:02d}.png", **options)
    return tmp_path


def words(*more):
    return ["fit-ae", "--config", str(TINY), "--data", "photos", "--device", "cpu", "--precision", "fp32", "loop.workers=0", *more]


def test_commands_say_what_was_enlarged_and_which_profiles_were_not_applied(photos, capsys):
    assert run(words("loop.steps=2", "loop.batch=40", "image.size=16")) == 0
    said = capsys.readouterr().err
    assert said.count("are smaller than 16 pixels and were enlarged; the smallest is 13x12.") == 1
    assert run(["encode-dataset", "--device", "cpu", "workers=0"]) == 0
    said = capsys.readouterr().err
    assert "11 of 44 pictures are smaller than 16 pixels and were enlarged; the smallest is 13x12." in said
    assert "1 of 44 pictures has a colour profile that could not be applied (it is damaged)" in said


def test_commands_leave_small_pictures_out_and_name_them(photos, capsys):
    assert run(words("loop.steps=2", "image.size=16", "image.smallest=16")) == 0
    said = capsys.readouterr().err
    assert "30 pictures, 3 held out" in said and "were enlarged" not in said and "unreadable" not in said
    assert "11 of 44 pictures are left out: less than image.smallest=16 pixels on the shorter side; " in said
    for folder in ("runs/ae", "cache"):
        assert folder == "runs/ae" or run(["encode-dataset", "--device", "cpu", "workers=0", "--json"]) == 0
        rows = [json.loads(line) for line in (photos / folder / "bad_images.jsonl").read_text().splitlines()]
        assert len(rows) == 11 and all("image.smallest is 16" in row["reason"] for row in rows)
    assert json.loads(capsys.readouterr().out)["items"] == {"train": 30, "val": 3}
    assert run(["encode-dataset", "--device", "cpu", "workers=0"]) == 0
    assert "is complete already: 30 train, 3 val" in capsys.readouterr().err


def test_a_picture_too_large_for_the_key_comes_in_when_the_key_grows(photos, capsys):
    Image.new("RGB", (60, 60), "red").save(photos / "photos" / "train" / "large.png")
    assert run(words("loop.steps=1", "image.size=16", "image.max_pixels=3000")) == 0
    assert run(["encode-dataset", "--device", "cpu", "workers=0", "-q"]) == 0
    (row,) = [json.loads(line) for line in (photos / "cache" / "bad_images.jsonl").read_text().splitlines()]
    assert "large.png is 60x60 pixels, more than the 3,000 that image.max_pixels allows" in row["reason"]
    capsys.readouterr()
    assert run(["encode-dataset", "--device", "cpu", "workers=0", "image.max_pixels=4000"]) == 0
    assert "44 latents stay, 1 are encoded" in capsys.readouterr().err and not (photos / "cache" / "bad_images.jsonl").exists()
    assert run(words("loop.steps=2", "image.size=16", "image.max_pixels=4000")) == 0, "a run continues with another limit"


def test_a_set_of_one_picture_over_and_over_is_said_at_once(photos, capsys):
    for file in (photos / "photos").rglob("*.png"):
        Image.new("RGB", (20, 20), "red").save(file)
    assert run(words("loop.steps=1", "image.size=16")) == 0
    said = capsys.readouterr().err
    first, last = said.index("the same picture"), said.rindex("the same picture")
    assert first < said.index("fit-ae step") < last and "loop.steps" not in said


def test_a_run_of_today_says_how_it_reads_profiles(photos):
    assert run(words("loop.steps=1", "image.size=16")) == 0
    assert read_config(photos / "runs" / "ae")["image"]["profile"] == "srgb"
