"""No held-out picture is trained on, and none is lost without a word: which folders split, wherever they lie and whatever links to them."""

import os

import pytest
from folders import labels, names, numbered, opened, said, write_pictures

from ldmctl.errors import DataError

TRAIN = ["train", "training", "Train", "TRAINING", "training_set", "train-images", "train2017", "trn"]
HELD = [
    "val",
    "validation",
    "valid",
    "dev",
    "eval",
    "evaluation",
    "test",
    "testing",
    "Test Set",
    "val2017",
    "held-out",
    "hold_out",
    "holdout",
]


@pytest.mark.parametrize("train", TRAIN)
@pytest.mark.parametrize("held", HELD)
def test_usual_names_split_the_pictures_in_any_spelling(tmp_path, train, held):
    write_pictures(tmp_path, *(f"{split}/{kind}/{kind}{i}.png" for split in (train, held) for kind in ("cat", "dog") for i in range(2)))
    for split, folder in (("train", train), ("val", held)):
        dataset = opened(tmp_path, split)
        assert {name.split("/")[0] for name in names(dataset)} == {folder} and len(dataset) == 4
        assert dataset.classes == ["cat", "dog"] and not dataset.warnings
        assert f"Splits by folder: {train}/ to train on, {held}/ held out." in said(dataset)


@pytest.mark.parametrize("pair", [("seg_train", "seg_test"), ("trainA", "testA"), ("birds train", "birds val"), ("TrainSet", "TestSet")])
def test_names_that_share_their_other_words_split_too(tmp_path, pair):
    write_pictures(tmp_path, *numbered(pair[0], 3), *numbered(pair[1], 2))
    assert (len(opened(tmp_path)), len(opened(tmp_path, "val"))) == (3, 2)


@pytest.mark.parametrize(
    ("train", "held"),
    [
        ("trainset", "testset"),
        ("trainset", "valset"),
        ("traindata", "testdata"),
        ("trainimages", "valimages"),
        ("imgs_train", "imgsval"),
        ("train", "devset"),
        ("train/x", "evalset/x"),
        ("train", "val_clean"),
        ("train", "cross_validation"),
        ("train_clean", "val"),
        ("steam_train", "crash_test"),
    ],
)
@pytest.mark.parametrize("classes", [("",), ("/cat", "/dog")])
def test_joined_names_and_names_with_other_words_split_too(tmp_path, train, held, classes):
    train_names, held_names = ([name for each in classes for name in numbered(split + each, 3)] for split in (train, held))
    write_pictures(tmp_path, *train_names, *held_names)
    dataset = opened(tmp_path)
    assert names(dataset) == train_names and names(opened(tmp_path, "val")) == held_names and not dataset.warnings
    assert dataset.classes == [each[1:] for each in classes if each]


@pytest.mark.parametrize(
    "held",
    ["test-dev", "val_test", "dev_test", "eval-holdout", "val/val_val", "valtest", "minival", "testdev2017", "devtest", "Test Dev Set"],
)
def test_a_name_of_two_held_out_words_is_held_out(tmp_path, held):
    write_pictures(tmp_path, *numbered("train", 3), *numbered(held, 2))
    assert names(opened(tmp_path)) == numbered("train", 3) and names(opened(tmp_path, "val")) == numbered(held, 2)


def test_a_name_with_words_of_both_sides_decides_nothing(tmp_path):
    write_pictures(tmp_path, *numbered("train_test_split/train", 3), *numbered("train_test_split/val_test", 2), *numbered("other", 2))
    assert names(opened(tmp_path, "val")) == numbered("train_test_split/val_test", 2)


def test_of_names_with_several_words_the_first_in_the_usual_order_is_held_out(tmp_path):
    write_pictures(tmp_path, *numbered("train", 3), *numbered("test_dev", 2), *numbered("test", 2), *numbered("val_test", 2))
    assert names(opened(tmp_path, "val")) == numbered("val_test", 2)


def test_a_held_out_word_beside_a_training_word_is_held_out_among_other_folders(tmp_path):
    write_pictures(tmp_path, *numbered("train", 3), *numbered("val_clean", 2), *numbered("more", 2))
    assert names(opened(tmp_path, "val")) == numbered("val_clean", 2)
    assert names(opened(tmp_path)) == [*numbered("more", 2), *numbered("train", 3)]


def test_a_training_split_with_classes_takes_the_held_out_word_beside_it_and_leaves_the_rest(tmp_path):
    write_pictures(tmp_path, *numbered("train/cat", 3), *numbered("train/dog", 3), *numbered("val_clean/cat", 2), *numbered("more", 2))
    train = opened(tmp_path)
    assert names(train) == [*numbered("train/cat", 3), *numbered("train/dog", 3)] and train.classes == ["cat", "dog"]
    assert names(opened(tmp_path, "val")) == numbered("val_clean/cat", 2)
    assert "2 pictures beside train/ and val_clean/ are left out: 2 in more/" in said(train)


def test_classes_with_a_training_word_beside_a_held_out_folder_stay_classes(tmp_path):
    write_pictures(tmp_path, *(f"{above}{kind}_train/{i}.png" for above in ("", "test/") for kind in ("model", "steam") for i in range(2)))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert train.classes == held.classes == ["model_train", "steam_train"] and (len(labels(train)), len(labels(held))) == (4, 4)


def test_words_that_only_begin_like_a_split_are_none(tmp_path):
    write_pictures(tmp_path, *numbered("trainers", 3), *numbered("testament", 3), *numbered("valley", 3))
    assert opened(tmp_path, val_share=0).classes == ["testament", "trainers", "valley"]


@pytest.mark.parametrize(
    "pair",
    [
        ("train/train", "test/test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/train", "test"),
        ("a/train/train", "a/val/val/val"),
    ],
)
def test_a_folder_that_an_archive_doubled_is_the_split_and_no_class(tmp_path, pair):
    write_pictures(tmp_path, *(f"{split}/{kind}/{i}.png" for split in pair for kind in ("sea", "street") for i in range(2)))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert train.classes == held.classes == ["sea", "street"] and not train.warnings
    assert labels(train) == {f"{pair[0]}/{kind}/{i}.png": kind for kind in ("sea", "street") for i in range(2)}
    assert labels(held) == {f"{pair[1]}/{kind}/{i}.png": kind for kind in ("sea", "street") for i in range(2)}


def test_a_class_may_be_called_as_the_split_around_it(tmp_path):
    write_pictures(tmp_path, *(f"{split}/{kind}/{i}.png" for split in ("train", "val") for kind in ("car", "train") for i in range(2)))
    assert opened(tmp_path).classes == ["car", "train"] == opened(tmp_path, "val").classes


def test_a_training_split_of_held_out_folders_alone_is_refused(tmp_path):
    write_pictures(tmp_path, *numbered("train/val", 2), *numbered("val/a", 2))
    with pytest.raises(DataError, match=r"^train/val/ and val/ are folders of held-out pictures by their names"):
        opened(tmp_path)


@pytest.mark.parametrize(("inside", "named"), [("val", "val"), ("test", "test"), ("val/a", "val"), ("a/val", "a/val")])
def test_a_held_out_name_in_a_training_split_is_left_out_where_it_is_no_class(tmp_path, inside, named):
    write_pictures(tmp_path, *numbered("train/a", 3), *numbered("train/b", 3), *numbered(f"train/{inside}", 2), *numbered("val/a", 2))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert names(train) == [*numbered("train/a", 3), *numbered("train/b", 3)] and names(held) == numbered("val/a", 2)
    assert train.classes == ["a", "b"]
    assert f"train/{named}/ (2 pictures) is left out, because val/ is held out already." in said(train)


@pytest.mark.parametrize("above", ["mydata", "a/b/c", "data/images"])
def test_a_split_further_down_is_the_split(tmp_path, above):
    write_pictures(tmp_path, *numbered(f"{above}/train/cat", 3), *numbered(f"{above}/train/dog", 3), *numbered(f"{above}/val/cat", 2))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert len(train) == 6 and names(held) == numbered(f"{above}/val/cat", 2)
    assert train.classes == held.classes == ["cat", "dog"] and len(labels(held)) == 2


def test_a_loose_picture_above_the_split_changes_nothing_but_is_named(tmp_path):
    write_pictures(tmp_path, "cover.png", *numbered("mydata/train", 3), *numbered("mydata/val", 2))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert (len(train), len(held)) == (3, 2)
    assert "1 picture beside mydata/train/ and mydata/val/ is left out" in said(train) and "cover.png" in said(train)


def test_every_class_may_have_its_own_split(tmp_path):
    write_pictures(tmp_path, *(f"{kind}/{split}/{i}.png" for kind in ("cat", "dog") for split in ("train", "val") for i in range(2)))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert names(held) == ["cat/val/0.png", "cat/val/1.png", "dog/val/0.png", "dog/val/1.png"]
    assert train.classes == ["cat", "dog"] and labels(held)["dog/val/0.png"] == "dog"


def test_pictures_beside_the_splits_are_counted_and_named(tmp_path):
    write_pictures(tmp_path, *numbered("train", 6), *numbered("val", 4), *numbered("more", 10), *(f"{i}.png" for i in range(4)))
    train = opened(tmp_path)
    assert (len(train), len(opened(tmp_path, "val"))) == (6, 4)
    assert "14 pictures beside train/ and val/ are left out: 10 in more/ and 4 in the folder itself; the first is 0.png." in said(train)


def test_of_two_held_out_folders_one_is_taken_and_the_other_named(tmp_path):
    write_pictures(tmp_path, *numbered("train", 3), *numbered("dev", 2), *numbered("test", 5))
    assert names(opened(tmp_path, "val")) == numbered("dev", 2)
    assert "test/ (5 pictures) is left out, because dev/ is held out already." in said(opened(tmp_path))


def test_a_held_out_folder_beside_pictures_holds_out_its_own_alone(tmp_path):
    write_pictures(tmp_path, *numbered("cat", 3), *numbered("dog", 3), *numbered("test/cat", 2), *numbered("test/dog", 1))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert len(train) == 6 and {name.split("/")[0] for name in names(held)} == {"test"} and len(held) == 3
    assert train.classes == ["cat", "dog"] and labels(held)["test/dog/0.png"] == "dog"
    assert "Splits by folder: all other pictures to train on, test/ held out." in said(train)


@pytest.mark.parametrize("layout", [["cat/val", "cat", "dog/val", "dog"], ["train/cat", "train/val"], ["train/train", "train/val", "test"]])
def test_a_held_out_folder_is_never_trained_on_however_deep_it_lies(tmp_path, layout):
    write_pictures(tmp_path, *(name for folder in layout for name in numbered(folder, 3)))
    assert not [name for name in names(opened(tmp_path)) if "val/" in name or "test/" in name]
    assert all("val/" in name for name in names(opened(tmp_path, "val")))


def test_held_out_folders_alone_are_refused_with_the_way_on(tmp_path):
    write_pictures(tmp_path, *numbered("val", 3), *numbered("test", 3))
    with pytest.raises(DataError, match=r"test/ and val/ are folders of held-out pictures.*dataset\.split_by=hash"):
        opened(tmp_path)
    assert len(opened(tmp_path, split_by="hash")) + len(opened(tmp_path, "val", split_by="hash")) == 6
    assert opened(tmp_path, split_by="hash").classes == ["test", "val"]


def test_classes_may_be_named_like_splits_within_a_split(tmp_path):
    write_pictures(tmp_path, *(f"{split}/{kind}/{i}.png" for split in ("train", "val") for kind in ("car", "test") for i in range(2)))
    train = opened(tmp_path)
    assert len(train) == 4 and train.classes == ["car", "test"]


# -- links -------------------------------------------------------------------


def test_a_split_made_of_links_is_the_split_whatever_it_links_to(tmp_path):
    write_pictures(
        tmp_path, *numbered("raw/big/cat", 3), *numbered("raw/big/dog", 3), *numbered("raw/small/cat", 2), *numbered("raw/small/dog", 2)
    )
    (tmp_path / "train").symlink_to(tmp_path / "raw" / "big")
    (tmp_path / "val").symlink_to(tmp_path / "raw" / "small")
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert (len(train), len(held)) == (6, 4) and train.classes == held.classes == ["cat", "dog"]
    assert all(name.startswith("train/") for name in names(train)) and all(name.startswith("val/") for name in names(held))
    assert not train.warnings and "10 pictures are in the splits already, under other names, and passed over in raw/." in said(train)


def test_the_order_of_listing_decides_nothing(tmp_path, monkeypatch):
    write_pictures(tmp_path, *numbered("pool", 12))
    for name in ("a", "z"):
        (tmp_path / name).symlink_to(tmp_path / "pool")
    listing, found = os.scandir, []

    class Turned:
        def __init__(self, path, key):
            with listing(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=key)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    for key in (False, True):
        monkeypatch.setattr(os, "scandir", lambda path, key=key: Turned(path, key))
        found.append([(names(opened(tmp_path, split, val_share=0.3)), said(opened(tmp_path, split))) for split in ("train", "val")])
    assert found[0] == found[1]
    assert len(found[0][0][0]) + len(found[0][1][0]) == 12
    assert all(name.startswith("pool/") for name in [*found[0][0][0], *found[0][1][0]])


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_held_out_file_under_a_second_name_is_not_trained_on(tmp_path, link):
    write_pictures(tmp_path, *numbered("train", 4), *numbered("val", 2))
    link(tmp_path / "val" / "0.png", tmp_path / "train" / "again.png")
    train = opened(tmp_path)
    assert names(train) == numbered("train", 4) and names(opened(tmp_path, "val")) == numbered("val", 2)
    assert "1 picture is in the training split and held out as well, and not trained on: train/again.png is val/0.png." in said(train)


def test_one_folder_for_both_splits_is_refused(tmp_path):
    write_pictures(tmp_path, *numbered("pool", 4))
    for split in ("train", "val"):
        (tmp_path / split).symlink_to("pool")
    with pytest.raises(DataError, match=r"Every picture to train on is held out too.*train/0\.png is the file val/0\.png"):
        opened(tmp_path)


def test_links_up_and_links_to_themselves_end(tmp_path):
    write_pictures(tmp_path, *numbered("a/b", 3))
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == numbered("a/b", 3)
    assert "Links to a folder above them are not followed: a/b/up/." in said(dataset) and "a/self.png" in said(dataset)


def test_folders_that_link_to_each_other_end(tmp_path):
    for name in "abcdef":
        write_pictures(tmp_path, f"{name}/{name}.png")
        for other in "abcdef":
            if other != name:
                (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == [f"{name}/{name}.png" for name in "abcdef"] and "Links lead to one folder by more than 16 names" in said(
        dataset
    )


@pytest.mark.parametrize("folders", [("tr", "te"), ("TR", "VA", "TE"), ("tr", "ts")])
@pytest.mark.parametrize("classes", [("",), ("/cat", "/dog")])
def test_short_words_for_splits_count_where_no_other_folder_is_there(tmp_path, folders, classes):
    write_pictures(tmp_path, *(path for name in folders for kind in classes for path in numbered(name + kind, 3)))
    dataset, held = opened(tmp_path), opened(tmp_path, "val")
    assert (len(dataset), len(held)) == (3 * len(classes), 3 * len(classes)) and all(path.startswith(folders[0]) for path in names(dataset))
    assert dataset.classes == [kind[1:] for kind in classes if kind]
    write_pictures(tmp_path, *numbered("en", 3))
    assert f"Classes by folder: {', '.join(sorted(['en', *folders])[:-1])} and" in said(opened(tmp_path))


def test_pictures_in_which_others_are_looked_for_are_held_out_beside_a_training_split(tmp_path):
    write_pictures(tmp_path, *numbered("train", 4), *numbered("query", 2), *numbered("gallery", 3))
    assert names(opened(tmp_path)) == numbered("train", 4) and len(opened(tmp_path, "val")) == 5
    assert "Splits by folder: train/ to train on, gallery/ and query/ held out." in said(opened(tmp_path))
