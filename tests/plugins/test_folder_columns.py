"""Tables with a column for each split: lists of names below `train`, `val` and `test`, or one of them true in every row."""

import json

import pytest
from folders import each, opened, said, shared, write_pictures, write_texts


def columns(train, val, test):
    """A table with a column of each split, of which the first is the longest."""
    rows = [",train,val,test"]
    for i, name in enumerate(train):
        rows.append(f"{i},{name},{val[i] if i < len(val) else ''},{test[i] if i < len(test) else ''}")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("name", ["slide_{}", "slide_{}.svs", "slide_{}.jpg", "images/slide_{}.jpg"])
def test_columns_that_list_the_pictures_of_each_split_hold_them_out(tmp_path, name):
    write_pictures(tmp_path, *each("images", 10, pre="slide_"))
    slides = [name.format(i) for i in range(10)]
    if name.endswith("svs"):  # a folder of patches for each
        write_pictures(tmp_path, *(path for i in range(10) for path in each(f"images/slide_{i}", 2)))
    write_texts(tmp_path, {"splits/splits_0.csv": columns(slides[:6], slides[6:8], slides[8:])})
    train, held = shared(tmp_path)
    assert {path.split("slide_")[1][0] for path in train} == set("012345") and {path.split("slide_")[1][0] for path in held} == set("67")
    found = said(opened(tmp_path))
    assert "the column `val` of splits/splits_0.csv held out, the column `train` of splits/splits_0.csv to train on." in found
    assert "of the column `test` of splits/splits_0.csv are left out, because" in found and "is not used" not in found


@pytest.mark.parametrize("picture", ["{}.jpg", "{:04}.jpg"])
@pytest.mark.parametrize("point", ["", ".0"])
def test_numbers_in_such_columns_name_pictures_and_counts_do_not(tmp_path, picture, point):
    pictures = [f"images/{picture.format(i)}" for i in range(10)]
    write_pictures(tmp_path, *pictures)
    numbers = [f"{i}{point}" for i in range(10)]
    counts = ",train,val,test\nnormal,8,1,1\ntumour,4,9,5\n"
    write_texts(tmp_path, {"splits_0.csv": columns(numbers[:6], numbers[6:8], numbers[8:]), "splits_0_descriptor.csv": counts})
    assert shared(tmp_path) == (pictures[:6], pictures[6:8])
    assert "splits_0_descriptor.csv is not used" in said(opened(tmp_path))


def test_of_folds_in_such_tables_the_first_is_used(tmp_path):
    write_pictures(tmp_path, *each("images", 9))
    for k in range(3):
        order = [(i + 3 * k) % 9 for i in range(9)]
        write_texts(tmp_path, {f"splits/splits_{k}.csv": columns(order[:5], order[5:7], order[7:])})
    assert shared(tmp_path) == (each("images", 5), each("images", 2, start=5))
    assert (
        "splits/splits_0.csv, splits/splits_1.csv and splits/splits_2.csv are folds of cross-validation, of which one trains on what another "
        "holds out: the first is used (splits/splits_0.csv)." in said(opened(tmp_path))
    )


@pytest.mark.parametrize("first", ["", "file_name"])
@pytest.mark.parametrize("yes", ["True", "1"])
def test_columns_of_which_one_is_true_say_the_split(tmp_path, first, yes):
    write_pictures(tmp_path, *each("images", 10))
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    no = {"True": "False", "1": "0"}[yes]
    rows = "".join(
        f"{i}.jpg,{','.join(yes if each == split else no for each in ('train', 'val', 'test'))}\n" for i, split in enumerate(splits)
    )
    write_texts(tmp_path, {"splits_0_bool.csv": f"{first},train,val,test\n{rows}"})
    assert shared(tmp_path) == (each("images", 6), each("images", 2, start=6))
    if first:
        assert "Splits by the column `train/val/test`: val held out, all other pictures to train on." in said(opened(tmp_path))
        assert "2 pictures of `test` are left out, because val is held out already." in said(opened(tmp_path))


def test_such_a_table_may_be_json(tmp_path):
    write_pictures(tmp_path, *each("images", 6))
    rows = [{"train": f"{i}.jpg", "test": f"{4 + i}.jpg" if i < 2 else None} for i in range(4)]
    write_texts(tmp_path, {"split.json": json.dumps(rows)})
    assert shared(tmp_path) == (each("images", 4), each("images", 2, start=4))


@pytest.mark.parametrize("head", ["", "10\n"])
def test_numbers_in_lists_name_pictures_with_zeros_before_them(tmp_path, head):
    pictures = [f"images/{i:05}.jpg" for i in range(1, 11)]
    write_pictures(tmp_path, *pictures)
    texts = {"train.txt": "\n".join(str(i) for i in range(1, 7)), "test.txt": "\n".join(str(i) for i in range(7, 11))}
    assert shared(write_texts(tmp_path, texts)) == (pictures[:6], pictures[6:])


def test_numbers_that_are_losses_or_counts_hold_nothing_out(tmp_path):
    write_pictures(tmp_path, *each("images", 12))
    losses = "epoch,train,val\n" + "".join(f"{i},{i},{i}\n" for i in range(10))
    write_texts(tmp_path, {"losses.csv": losses, "train.txt": "9\n"})
    dataset = opened(tmp_path)
    assert len(dataset) + len(opened(tmp_path, "val")) == 12 and "by a hash of each path" in said(dataset)
    assert "losses.csv is not used" in said(dataset)
