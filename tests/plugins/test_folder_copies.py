"""A held-out picture is not trained on as a copy of itself, nor in another fold of cross-validation."""

import os
import re
import shutil

import pytest
from folders import names, numbered, opened, said, write_pictures

from ldmctl.errors import DataError
from ldmctl_plugins.datasets import _copies


def copied(root, *pairs):
    """Copies of pictures -> the folder."""
    for source, target in pairs:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)
    return root


@pytest.mark.parametrize("layout", ["{}/{}", "a/b/{}/{}", "{}/cat/{}", "cat/{}/{}"])
def test_a_copy_of_a_held_out_picture_is_not_trained_on(tmp_path, layout):
    write_pictures(tmp_path, *(layout.format("train", f"{i}.png") for i in range(4)), *(layout.format("val", f"{i}.png") for i in range(2)))
    copied(tmp_path, *((layout.format("val", f"{i}.png"), layout.format("train", f"copy{i}.png")) for i in range(2)))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert names(train) == [layout.format("train", f"{i}.png") for i in range(4)] and len(held) == 2
    pair = layout.format("train", "copy0.png"), layout.format("val", "0.png")
    sentence = f"2 pictures are in the training split and held out as well, and not trained on: the first, {pair[0]}, is {pair[1]}."
    assert sentence in train.warnings and sentence in held.warnings


def test_a_copy_of_what_a_hash_a_column_or_a_list_holds_out_is_not_trained_on(tmp_path):
    write_pictures(tmp_path, *numbered("a", 4))
    copied(tmp_path, *((f"a/{i}.png", f"b/{i}.png") for i in range(4)))
    train, (held,) = names(opened(tmp_path)), names(opened(tmp_path, "val"))
    assert len(train) == 6 and held.replace("a/", "b/") not in train and "held out as well" in said(opened(tmp_path))
    (tmp_path / "val.txt").write_text("a/2.png\n")
    assert names(opened(tmp_path)) == [f"{folder}/{i}.png" for folder in "ab" for i in (0, 1, 3)]


def test_a_copy_or_link_of_what_another_held_out_split_has_is_not_trained_on(tmp_path):
    write_pictures(tmp_path, *numbered("train", 3), *numbered("val", 2), *numbered("test", 2))
    copied(tmp_path, ("test/0.png", "train/copy.png"))
    (tmp_path / "train" / "link.png").symlink_to(tmp_path / "test" / "1.png")
    assert names(opened(tmp_path)) == numbered("train", 3)
    assert "2 pictures are in the training split and held out as well" in said(opened(tmp_path))


def test_where_a_left_out_split_has_every_picture_they_are_trained_on_and_it_is_said(tmp_path):
    write_pictures(tmp_path, *numbered("train", 3), *numbered("val", 2))
    copied(tmp_path, *((f"train/{i}.png", f"test/{i}.png") for i in range(3)))
    assert len(opened(tmp_path)) == 3
    assert "Every picture to train on is in a held-out split that is left out as well." in said(opened(tmp_path))


def test_copies_alone_to_train_on_are_refused(tmp_path):
    write_pictures(tmp_path, *numbered("val", 3))
    copied(tmp_path, *((f"val/{i}.png", f"train/{i}.png") for i in range(3)))
    with pytest.raises(DataError, match=r"Every picture to train on is held out too.*train/0\.png is val/0\.png, byte by byte") as caught:
        opened(tmp_path)
    assert caught.value.exit_code == 3


def test_pictures_of_one_size_and_one_beginning_are_not_taken_for_copies(tmp_path):
    write_pictures(tmp_path, "train/0.png", "val/0.png")
    start = b"\x89PNG" + b"\0" * _copies.HEAD
    for name in ("train/1.png", "val/1.png"):
        (tmp_path / name).write_bytes(start + name[:3].encode())
    assert len(opened(tmp_path)) == 2 and not opened(tmp_path).warnings


def test_only_files_whose_size_is_in_both_splits_are_opened_and_of_too_many_those_with_one_name(tmp_path, monkeypatch):
    write_pictures(tmp_path, *numbered("train", 5), *numbered("val", 3))
    for number, name in enumerate((*numbered("train", 4), *numbered("val", 2))):
        (tmp_path / name).write_bytes(b"x" * (1000 + number))
    looked = []
    digest = _copies._digest.__wrapped__
    monkeypatch.setattr(_copies, "_digest", lambda file, *rest: looked.append(os.path.relpath(file, tmp_path)) or digest(file, *rest))
    opened(tmp_path)
    assert set(looked) <= {"train/4.png", "val/2.png"}
    for name in (*numbered("train", 5), *numbered("val", 3)):
        (tmp_path / name).write_bytes(name.encode().ljust(1000))
    copied(tmp_path, ("val/1.png", "train/1.png"))
    monkeypatch.setattr(_copies, "MOST", 6)
    looked.clear()
    assert names(opened(tmp_path)) == [f"train/{i}.png" for i in (0, 2, 3, 4)]
    assert "train/4.png" not in looked and "8 pictures of both splits have sizes in common, and only those with one name" in said(
        opened(tmp_path)
    )


# -- folds -------------------------------------------------------------------

FOLDS = [("fold1", "fold2"), ("fold_0", "fold_1"), ("cv/split-a", "cv/split-b"), ("1", "2")]


def fold(root, folds, train, held, way):
    """Folds as scripts make them, out of pictures of a folder that is gone afterwards."""
    for name, trained, kept in zip(folds, train, held, strict=True):
        for split, numbers in (("train", trained), ("val", kept)):
            (root / name / split).mkdir(parents=True)
            for number in numbers:
                way(root / "pool" / f"{number}.png", root / name / split / f"{number}.png")
    if way is not os.symlink:
        shutil.rmtree(root / "pool")


@pytest.mark.parametrize("folds", FOLDS)
@pytest.mark.parametrize("way", [shutil.copy, os.link, os.symlink])
def test_no_held_out_picture_of_any_fold_is_trained_on(tmp_path, folds, way):
    write_pictures(tmp_path, *numbered("pool", 8))
    fold(tmp_path, folds, [(2, 3, 4, 5, 6, 7), (0, 1, 4, 5, 6, 7)], [(0, 1), (2, 3)], way)
    train = opened(tmp_path)
    assert {name.rpartition("/")[2][0] for name in names(train)} == set("4567")
    assert {name.rpartition("/")[2][0] for name in names(opened(tmp_path, "val"))} == set("0123")
    one, other = (name.rpartition("/")[2] for name in folds)
    assert f"{one} and {other} look like folds of cross-validation" in said(train)


@pytest.mark.parametrize("way", [shutil.copy, os.link])
def test_folds_that_hold_out_every_picture_are_refused_with_the_way_on(tmp_path, way):
    write_pictures(tmp_path, *numbered("pool", 4))
    fold(tmp_path, ("fold1", "fold2"), [(0, 1), (2, 3)], [(2, 3), (0, 1)], way)
    words = "held out too.*fold1 and fold2 look like folds of cross-validation.*give its folder as --data"
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert re.search(words, str(caught.value)) and len(opened(tmp_path / "fold1")) == 2


def test_one_picture_in_two_classes_is_no_fold(tmp_path):
    write_pictures(tmp_path, *(f"{kind}/{split}/{i}.png" for kind in ("cat", "dog") for split in ("train", "val") for i in range(2)))
    copied(tmp_path, ("cat/val/0.png", "dog/train/copy.png"))
    assert "held out as well" in said(opened(tmp_path)) and "cross-validation" not in said(opened(tmp_path))
