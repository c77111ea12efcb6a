"""Classes by folder, where names of splits and of pictures stand in the way, and together with tables of held-out pictures."""

import pytest
from folders import labels, names, numbered, opened, said, write_pictures


def classes(root):
    """(the class of each picture to train on, of each that is held out)."""
    return labels(opened(root)), labels(opened(root, "val"))


def of(**folders):
    """The class of each of two pictures in folders, by path."""
    return {name: kind for folder, kind in folders.items() for name in numbered(folder.replace("__", "/"), 2)}


@pytest.mark.parametrize(
    ("layout", "kinds"),
    [
        ("{}_train {}_test", ("cats", "dogs")),
        ("train_{} val_{}", ("cats", "dogs")),
        ("all/Train-{} all/Test-{}", ("Cats", "hot_dogs")),
        ("{}Train {}Val", ("cat", "dog")),
        ("train{} test{}", ("A", "B")),
        ("{}_train2017 {}_val2017", ("class1", "class2")),
        ("train_{}_images val_{}_images", ("cats", "dogs")),
        ("{}_train/{}_train {}_test/{}_test", ("cats", "dogs")),
    ],
)
def test_words_beside_the_name_of_a_split_are_classes(tmp_path, layout, kinds):
    train, held = layout.split()
    folders = [[(each.replace("{}", kind), kind) for kind in kinds] for each in (train, held)]
    write_pictures(tmp_path, *(name for side in folders for folder, _ in side for name in numbered(folder, 2)))
    assert classes(tmp_path) == tuple({name: kind for folder, kind in side for name in numbered(folder, 2)} for side in folders)
    assert f"Classes by folder: {kinds[0]} and {kinds[1]}." in said(opened(tmp_path)) and not opened(tmp_path).warnings


def test_a_word_that_all_share_and_one_above_classes_are_no_classes(tmp_path):
    write_pictures(
        tmp_path, *(f"{kind}_{split}/{name}/0.png" for kind in ("seg", "pred") for split in ("train", "val") for name in ("sea", "ice"))
    )
    assert opened(tmp_path).classes == ["ice", "sea"]


@pytest.mark.parametrize("layout", ["train_fold{0} val_fold{0}", "train_{0} val_{0}"])
def test_a_number_of_a_fold_is_no_class(tmp_path, layout):
    write_pictures(tmp_path, *(name for i in (1, 2) for folder in layout.format(i).split() for name in numbered(folder, 2)))
    assert not opened(tmp_path).classes and len(opened(tmp_path)) == len(opened(tmp_path, "val")) == 4


def tiny(root):
    """As tiny-imagenet is unpacked."""
    return write_pictures(
        root, *(name for folder in ("train/n01/images", "train/n02/images", "val/images") for name in numbered(folder, 2))
    )


def test_a_folder_called_images_is_no_class(tmp_path):
    tiny(tmp_path)
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert train.classes == held.classes == ["n01", "n02"] and not labels(held)
    assert labels(train) == of(train__n01__images="n01", train__n02__images="n02")
    assert "Classes by folder: n01 and n02. 2 pictures have none, the first val/images/0.png." in said(train)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("val/val_annotations.txt", "0.png\tn02\t0\t0\t62\t62\n1.png\tn01\t0\t0\t62\t62\n"),
        ("val_labels.txt", "val/images/0.png n02\nval/images/1.png n01\n"),
        ("val/labels.csv", "file_name,label\nimages/0.png,n02\nimages/1.png,n01\n"),
        ("val/metadata.csv", "file_name,label\nimages/0.png,n02\nimages/1.png,n01\n"),
    ],
)
def test_classes_of_held_out_pictures_may_stand_in_a_table_or_list_and_those_of_training_in_folders(tmp_path, name, text):
    (tiny(tmp_path) / name).write_text(text)
    train, held = classes(tmp_path)
    assert train == of(train__n01__images="n01", train__n02__images="n02")
    assert held == {"val/images/0.png": "n02", "val/images/1.png": "n01"}


def test_words_of_a_list_that_are_no_classes_are_no_labels(tmp_path):
    (tiny(tmp_path) / "val_boxes.txt").write_text("val/images/0.png 3\nval/images/1.png n01\n")
    assert not labels(opened(tmp_path, "val"))


@pytest.mark.parametrize("kind", ["photos", "pictures"])
def test_a_kind_of_pictures_may_be_a_class(tmp_path, kind):
    write_pictures(tmp_path, *(name for folder in (kind, "sketches", "paintings") for name in numbered(folder, 3)))
    assert opened(tmp_path).classes == sorted([kind, "sketches", "paintings"])


def test_folders_called_images_above_and_below_classes_are_passed(tmp_path):
    write_pictures(tmp_path, *numbered("train/images/cat", 2), *numbered("train/images/dog", 2), *numbered("val/cat/imgs", 2))
    assert classes(tmp_path) == (of(train__images__cat="cat", train__images__dog="dog"), of(val__cat__imgs="cat"))


@pytest.mark.parametrize("table", [True, False])
def test_classes_of_held_out_pictures_alone_are_warned_of(tmp_path, table):
    pictures = [f"{split}/{kind}/0.png" for split, kinds in (("train", "ab"), ("val", "acd")) for kind in kinds]
    write_pictures(tmp_path, *pictures)
    if table:
        (tmp_path / "labels.csv").write_text("file_name,label\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in pictures))
    sentence = "2 classes occur in held-out pictures alone, so that nothing is learnt of them: c and d."
    assert sentence in opened(tmp_path).warnings and sentence in opened(tmp_path, "val").warnings


# -- tables of splits that are left out --------------------------------------


@pytest.mark.parametrize("name", ["test/metadata.csv", "test/labels.csv", "labels.csv", "test_labels.csv"])
@pytest.mark.parametrize("label", ["x", "cat"])
def test_a_table_of_a_split_that_is_left_out_changes_nothing(tmp_path, name, label):
    pictures = [each for folder in ("train/cat", "train/dog", "val/cat", "val/dog") for each in numbered(folder, 2)]
    write_pictures(tmp_path, *pictures, *numbered("test", 2))
    start = "" if "/" in name else "test/"
    (tmp_path / name).write_text("file_name,label\n" + "".join(f"{start}{i}.png,{label}\n" for i in range(2)))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert labels(train) == {each: each.split("/")[1] for each in pictures[:4]} and len(labels(held)) == 4
    assert names(held) == pictures[4:] and f"{name} is not used: the pictures that it names are left out." in said(train)


def test_labels_of_a_split_that_is_left_out_leave_the_classes_of_folders(tmp_path):
    write_pictures(tmp_path, *numbered("train/cat", 2), *numbered("train/dog", 2), *numbered("val/cat", 2), *numbered("test", 2))
    rows = [*((name, "", "a text") for name in numbered("train/cat", 2)), ("test/0.png", "y", "")]
    (tmp_path / "labels.csv").write_text("file_name,label,text\n" + "".join(f"{','.join(row)}\n" for row in rows))
    assert opened(tmp_path).classes == ["cat", "dog"] and opened(tmp_path).counts == {"labels": 4, "captions": 2}
