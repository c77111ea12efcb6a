"""Held-out pictures stay out of training where they are named in ways that few folders have: lists in one line, rows without folders, splits beside no others."""

import json
import os

import pytest
from folders import labels, names, numbered, opened, said, shared, write_pictures, write_texts

from ldmctl.errors import DataError

TEN = numbered("images", 10)

# -- folders -----------------------------------------------------------------


@pytest.mark.parametrize("train", ["empty", "link", "unread", "closed"])
@pytest.mark.parametrize("above", ["", "mydata/"])
def test_a_held_out_folder_is_not_trained_on_where_the_training_split_holds_no_picture(tmp_path, train, above, monkeypatch):
    write_pictures(tmp_path, *numbered(f"{above}val/cat", 3), *numbered(f"{above}val/dog", 3))
    folder = tmp_path / above / "train"
    if train == "link":
        folder.symlink_to(tmp_path / "unmounted")
    else:
        folder.mkdir()
    if train == "unread":
        write_texts(folder, {"cat/0.cr2": "raw"})
    if train == "closed":
        listing = os.scandir

        def scandir(path):
            if str(path) == str(folder):
                raise PermissionError(13, "Permission denied")
            return listing(path)

        monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        DataError, match=rf"{above}val/ is a folder of held-out pictures by its name, and no picture that is read lies in {above}train/\."
    ):
        opened(tmp_path)
    assert len(opened(tmp_path, split_by="hash")) + len(opened(tmp_path, "val", split_by="hash")) == 6


def test_a_held_out_folder_alone_is_a_set_of_its_own(tmp_path):
    write_pictures(tmp_path, *numbered("val2017", 6))
    assert len(opened(tmp_path)) == 5 and len(opened(tmp_path, "val")) == 1


def test_folders_of_two_held_out_words_that_are_called_the_same_otherwise_are_held_out(tmp_path):
    write_pictures(
        tmp_path, *numbered("data_large/a", 3), *numbered("data_large/b", 3), *numbered("val_large", 2), *numbered("test_large", 2)
    )
    assert shared(tmp_path) == ([*numbered("data_large/a", 3), *numbered("data_large/b", 3)], numbered("val_large", 2))
    assert "test_large/ (2 pictures) is left out, because val_large/ is held out already." in said(opened(tmp_path))
    assert opened(tmp_path).classes == ["a", "b"]


def test_one_held_out_word_among_other_words_stays_a_class(tmp_path):
    write_pictures(tmp_path, *numbered("blood_test", 3), *numbered("blood_sample", 3), *numbered("eye_test", 3))
    assert opened(tmp_path, val_share=0).classes == ["blood_sample", "blood_test", "eye_test"]


# -- lists -------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda paths: json.dumps(paths, indent=1),
        ",".join,
        " ".join,
        lambda paths: ", ".join(f'"{path}"' for path in paths),
        lambda paths: str([path.removeprefix("images/").removesuffix(".png") for path in paths]),
        lambda paths: ",".join(path.removeprefix("images/").removesuffix(".png") for path in paths),
    ],
)
def test_a_list_in_one_line_names_all_its_pictures(tmp_path, form):
    write_pictures(tmp_path, *TEN)
    write_texts(tmp_path, {"test.txt": form(TEN[7:])})
    assert shared(tmp_path) == (TEN[:7], TEN[7:]) and not opened(tmp_path).warnings
    write_texts(tmp_path, {"train.txt": form(TEN[:6])})
    assert shared(tmp_path) == (TEN[:6], TEN[7:])


def test_names_in_one_line_of_which_no_picture_is_there_are_counted(tmp_path):
    write_pictures(tmp_path, *TEN)
    write_texts(tmp_path, {"test.txt": " ".join([*TEN[8:], "images/90.png"])})
    assert shared(tmp_path) == (TEN[:8], TEN[8:])
    assert "test.txt: 1 line names no picture, the first images/90.png." in opened(tmp_path).warnings


def test_names_with_spaces_may_stand_in_one_line(tmp_path):
    pictures = [f"my photo {i}.png" for i in range(6)]
    write_pictures(tmp_path, *pictures)
    write_texts(tmp_path, {"train.txt": str(pictures[:4]), "test.txt": ", ".join(pictures[4:])})
    assert shared(tmp_path) == (pictures[:4], pictures[4:])


def test_both_pictures_of_a_pair_are_those_of_the_list(tmp_path):
    write_pictures(tmp_path, *numbered("rain", 5), *numbered("clean", 5))
    write_texts(tmp_path, {"test.txt": "".join(f"rain/{i}.png clean/{i}.png {i}\n" for i in (3, 4))})
    assert names(opened(tmp_path)) == [*numbered("clean", 3), *numbered("rain", 3)]


def test_a_label_beside_the_one_name_of_a_list_is_no_second_name(tmp_path):
    write_pictures(tmp_path, *TEN)
    write_texts(tmp_path, {"test.txt": "7 1\n"})
    assert names(opened(tmp_path, "val")) == ["images/7.png"]


@pytest.mark.parametrize("name", ["val.txt", "test_idx.txt", "train_ids.txt"])
def test_a_list_of_a_split_that_names_no_picture_is_said_to_say_nothing(tmp_path, name):
    write_pictures(tmp_path, *numbered("images/img", 3))
    write_texts(tmp_path, {name: "8\n9\n10\n"})
    assert f"{name} has the name of a split, but no picture that is here is named in it." in opened(tmp_path).warnings


@pytest.mark.parametrize("name", ["exclude.txt", "tr.txt", "list.txt"])
def test_a_text_of_names_alone_that_is_no_list_of_a_split_is_said_to_be_not_read(tmp_path, name):
    write_pictures(tmp_path, *TEN)
    write_texts(tmp_path, {name: "\n".join(TEN[:4])})
    assert f"1 text file names pictures and is not read: {name}." in said(opened(tmp_path))
    assert "text file belongs to no picture" not in said(opened(tmp_path))


# -- rows --------------------------------------------------------------------


@pytest.mark.parametrize("table", ["metadata.csv", "labels.csv"])
@pytest.mark.parametrize(
    "folders", [("train", "val", "test"), ("images_train", "images_valid", "images_test"), ("x/train/all", "x/dev/all", "x/test/all")]
)
def test_a_row_without_folders_is_that_of_the_split_it_names(tmp_path, table, folders):
    write_pictures(tmp_path, *(name for folder in folders for name in numbered(folder, 3)))
    words = ("train", "dev" if "dev" in folders[1] else "val", "test")
    rows = [f"{i}.png,{word},{word[0]}{i % 2}\n" for word in words for i in range(3)]
    write_texts(tmp_path, {table: "file_name,split,label\n" + "".join(rows)})
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert labels(train) == {f"{folders[0]}/{i}.png": f"t{i % 2}" for i in range(3)}
    assert labels(held) == {f"{folders[1]}/{i}.png": f"{words[1][0]}{i % 2}" for i in range(3)}


def test_pictures_that_rows_of_an_unused_table_may_hold_out_are_not_trained_on(tmp_path):
    write_pictures(tmp_path, *numbered("cat", 4), *numbered("dog", 4))
    write_texts(tmp_path, {"labels.csv": "file_name,split\n0.png,train\n1.png,train\n2.png,test\n"})
    train = opened(tmp_path)
    assert not {"cat/2.png", "dog/2.png"} & {*names(train), *names(opened(tmp_path, "val"))}
    assert "labels.csv is not used: it names none of the pictures (line 2, 0.png, may be cat/0.png and dog/0.png)." in said(train)
    assert (
        "are perhaps held out by the column `split`, in a row that fits several pictures, and left out: the first is cat/2.png, test."
        in said(train)
    )


def test_a_table_whose_rows_all_fit_several_pictures_says_which(tmp_path):
    write_pictures(tmp_path, *numbered("cat", 2), *numbered("dog", 2))
    write_texts(tmp_path, {"metadata.csv": "file_name,label\n0.png,a\n"})
    with pytest.raises(DataError, match=r"names none of the 4 pictures found; line 2, 0\.png, may be cat/0\.png and dog/0\.png\."):
        opened(tmp_path)


@pytest.mark.parametrize("table", ["labels.csv", "test.csv", "test.txt"])
@pytest.mark.parametrize(
    "spelt", [lambda name: name.replace(" ", "%20"), lambda name: name.replace(".png", ".jpeg"), lambda name: name.replace(".png", ".HEIC")]
)
def test_a_name_in_a_web_address_or_with_the_ending_of_another_format_holds_its_picture_out(tmp_path, table, spelt):
    pictures = [f"images/a b {i}.png" for i in range(8)]
    write_pictures(tmp_path, *pictures)
    held = [spelt(name) for name in pictures[6:]]
    if table == "labels.csv":
        text = "file_name,split\n" + "".join(f"{name},train\n" for name in pictures[:6]) + "".join(f"{name},test\n" for name in held)
    else:
        text = ("file_name,label\n" if table.endswith("csv") else "") + "".join(f"{name}{',x' * table.endswith('csv')}\n" for name in held)
    write_texts(tmp_path, {table: text})
    assert shared(tmp_path) == (pictures[:6], pictures[6:])


def test_a_row_of_another_format_is_not_given_to_a_picture_that_has_its_own_row(tmp_path):
    write_pictures(tmp_path, "0.png", "1.png")
    write_texts(tmp_path, {"labels.csv": "file_name,label\n0.jpg,a\n0.png,b\n1.png,b\n"})
    assert opened(tmp_path).classes == ["b"] and "1 row names no picture (the first is line 2 of labels.csv: 0.jpg)" in said(
        opened(tmp_path)
    )


# -- settings ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["train: a\nval: b\nnc: 1\n", "train:\n  - a\nval:\n  - b\n", "classes= 1\ntrain = tr.txt\nvalid = te.txt\n"]
)
def test_settings_of_other_programs_that_name_splits_are_said_to_be_not_read(tmp_path, text):
    name = "data.yaml" if ":" in text else "obj.data"
    write_pictures(tmp_path, *numbered("a", 3), *numbered("b", 3))
    write_texts(tmp_path, {name: text})
    assert f"{name} may name splits and is not read: folders called train and val" in said(opened(tmp_path))
    write_pictures(tmp_path, *numbered("val", 3))
    assert name not in said(opened(tmp_path))


def test_settings_of_a_training_are_no_splits(tmp_path):
    write_pictures(tmp_path, *numbered("a", 3))
    write_texts(tmp_path, {"config.yaml": "train_batch: 2\nval_every: 3\ntrain: true\n"})
    assert "config.yaml" not in said(opened(tmp_path))


def test_names_of_files_that_hold_out_every_picture_are_refused_in_plain_words(tmp_path):
    write_pictures(tmp_path, *(f"train/test_{i}.png" for i in range(3)), *(f"val/train_{i}.png" for i in range(3)))
    with pytest.raises(
        DataError, match=r"^The names of files hold out every picture; .* If they mean something else: dataset\.split_by=hash\."
    ):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"val.txt": TEN[:5], "test.txt": TEN[5:]}, "The lists of each split hold out every picture"),
        ({"test.txt": TEN, "train.txt": ["images/90.png", "images/91.png"]}, "The lists of each split hold out every picture"),
        ({"sample_submission.csv": ["file_name", *TEN], "train.csv": ["file_name", "images/90.png"]}, "hold out every picture"),
    ],
)
def test_lists_that_hold_out_every_picture_stop_where_training_pictures_are_not_there(tmp_path, lists, words):
    write_pictures(tmp_path, *TEN)
    write_texts(tmp_path, {name: "\n".join(lines) + "\n" for name, lines in lists.items()})
    with pytest.raises(DataError, match=rf"{words}; none is left to train on.*dataset\.tables=false"):
        opened(tmp_path)
    assert len(opened(tmp_path, tables=False)) == 9


def test_a_caption_of_a_picture_called_train_is_no_list_of_a_training_split(tmp_path):
    write_pictures(tmp_path, "train.png", "plane.png")
    write_texts(tmp_path, {"train.txt": "a train", "test.csv": "file_name,label\ntrain.png,a\nplane.png,b\n"})
    assert len(opened(tmp_path)) == 1


@pytest.mark.parametrize("words", [("val",), ("val", "test")])
def test_pictures_that_are_all_held_out_by_their_names_are_said_to_be_trained_on(tmp_path, words):
    write_pictures(tmp_path, *(f"all/COCO_{word}2014_{i:03}.png" for word in words for i in range(4)))
    assert "have the word of a held-out split in their names" in said(opened(tmp_path)) and "these pictures are trained on" in said(
        opened(tmp_path)
    )
    write_pictures(tmp_path, *numbered("val", 2))
    assert "in their names" not in said(opened(tmp_path))
