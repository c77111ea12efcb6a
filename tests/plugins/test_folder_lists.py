"""Splits that no folder names: by tables and lists called train and val, by columns of any name, by the names of files."""

import json

import pytest
from folders import captions, labels, names, numbered, opened, said, write_pictures

from ldmctl.errors import DataError

TEN = [f"images/{i}.png" for i in range(10)]


def shared(root, **keys):
    """(the pictures to train on, those held out)."""
    return names(opened(root, **keys)), names(opened(root, "val", **keys))


def rows(paths):
    """A CSV with a label."""
    return "file_name,label\n" + "".join(f"{path},x\n" for path in paths)


def lines(paths):
    """JSON lines with a caption."""
    return "".join(json.dumps({"file_name": path, "text": path}) + "\n" for path in paths)


def coco(paths):
    """Captions as COCO has them; names without their folder."""
    images = [{"id": i, "file_name": path.rpartition("/")[2]} for i, path in enumerate(paths)]
    return json.dumps({"images": images, "annotations": [{"image_id": i, "caption": path} for i, path in enumerate(paths)]})


def words(paths, *, ending=True, more=""):
    """A list of names."""
    return "".join((path if ending else path.rpartition("/")[2].removesuffix(".png")) + more + "\n" for path in paths)


TABLES = {
    ("train.csv", "val.csv"): rows,
    ("Train.csv", "Test.csv"): rows,
    ("metadata_train.jsonl", "metadata_test.jsonl"): lines,
    ("annotations/captions_train.json", "annotations/captions_val.json"): coco,
    ("annotations/instances_train2017.json", "annotations/image_info_test-dev2017.json"): coco,
    ("tables/train/labels.csv", "tables/val/labels.csv"): lambda paths: rows(f"../../{path}" for path in paths),
    ("train.json", "test.json"): lambda paths: json.dumps(list(paths)),
    ("train.csv", "holdout.csv"): lambda paths: "file_name,width\n" + "".join(f"{path},8\n" for path in paths),
    ("train.txt", "val.txt"): words,
    ("train.tsv", "dev.tsv"): lambda paths: words(paths, more="\t7"),
    ("annotations/trainval.txt", "annotations/test.txt"): lambda paths: words(paths, ending=False, more=" 1 1 1"),
    ("ImageSets/Main/cat_train.txt", "ImageSets/Main/cat_val.txt"): lambda paths: words(paths, ending=False, more=" -1"),
    ("lists/train", "lists/test"): lambda paths: words(f"/home/me/set/{path}" for path in paths),
    ("splits/train/files.lst", "splits/val/files.lst"): lambda paths: words(f"./{path}" for path in paths),
}


@pytest.mark.parametrize("pair", TABLES)
def test_tables_and_lists_called_as_splits_are_split_the_pictures(tmp_path, pair):
    write_pictures(tmp_path, *TEN)
    for name, paths in zip(pair, (TEN[:7], TEN[7:]), strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(TABLES[pair](paths))
    assert shared(tmp_path) == (TEN[:7], TEN[7:])
    dataset = opened(tmp_path)
    assert "Splits by the lists of each split: " in dataset.remarks[0] and "held out" in dataset.remarks[0]
    assert not dataset.warnings and "belong to no picture" not in said(dataset)


def test_a_table_of_a_split_keeps_its_labels_and_captions(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "train.csv").write_text(rows(TEN[:7]))
    (tmp_path / "val.csv").write_text(rows(TEN[7:]))
    assert labels(opened(tmp_path)) == dict.fromkeys(TEN[:7], "x") and labels(opened(tmp_path, "val")) == dict.fromkeys(TEN[7:], "x")


def test_a_table_and_a_list_split_the_pictures_together(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "train.csv").write_text(rows(TEN[:7]))
    (tmp_path / "val.txt").write_text(words(TEN[7:]))
    assert shared(tmp_path) == (TEN[:7], TEN[7:])
    assert opened(tmp_path).remarks[0] == "Splits by the lists of each split: val.txt held out, train.csv to train on."
    assert "3 of 10 pictures have no row (0 of 7 in train, 3 of 3 in val" in said(opened(tmp_path))


def test_of_three_lists_one_is_held_out_and_pictures_of_none_are_left_out(tmp_path):
    write_pictures(tmp_path, *TEN)
    for name, paths in (("train", TEN[:4]), ("val", TEN[4:6]), ("test", TEN[6:8])):
        (tmp_path / f"{name}.txt").write_text(words(paths))
    assert shared(tmp_path) == (TEN[:4], TEN[4:6])
    told = said(opened(tmp_path))
    assert "2 pictures of `test.txt` are left out, because val.txt is held out already." in told
    assert "2 pictures in none of the lists of the splits are left out, the first images/8.png." in told


def test_a_picture_in_both_lists_is_held_out(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "trainval.txt").write_text(words(TEN))
    (tmp_path / "val.txt").write_text(words(TEN[7:]))
    assert shared(tmp_path) == (TEN[:7], TEN[7:])


def test_a_held_out_table_alone_holds_out_its_own_unless_it_names_all(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "test.csv").write_text(rows(TEN[7:]))
    assert shared(tmp_path) == (TEN[:7], TEN[7:])
    assert "test.csv held out, all other pictures to train on." in opened(tmp_path).remarks[0]
    (tmp_path / "test.csv").write_text(rows(TEN))
    assert len(opened(tmp_path)) == 9 and "test.csv has the name of a held-out split, but no other pictures are there" in said(
        opened(tmp_path)
    )


def test_where_folders_decide_lists_take_pictures_out_of_training_alone(tmp_path):
    write_pictures(tmp_path, *(f"{split}/{i}.png" for split, count in (("train", 5), ("test", 2)) for i in range(count)))
    (tmp_path / "val.txt").write_text("train/4.png\n")
    (tmp_path / "test.txt").write_text("0\n1\n")
    assert shared(tmp_path) == ([f"train/{i}.png" for i in range(4)], ["test/0.png", "test/1.png"])
    sentence = "1 picture of train by its folder is held out by the lists of each split and left out: the first is train/4.png, val.txt."
    assert sentence in said(opened(tmp_path))


def test_what_is_called_as_a_split_and_names_no_picture_is_no_list(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "test.txt").write_text("This is the test of\n0 things\nand more\n")
    (tmp_path / "labels" / "val").mkdir(parents=True)
    for i in range(4):  # as YOLO has boxes
        (tmp_path / "labels" / "val" / f"{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert len(opened(tmp_path)) + len(opened(tmp_path, "val")) == 10 and "5 text files belong to no picture" in said(opened(tmp_path))
    assert "Splits: no folder is held out by its name" in opened(tmp_path).remarks[0]


def test_a_table_called_as_a_split_that_names_no_picture_and_says_nothing_is_named(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "test.csv").write_text("file_name,width\nelse.png,8\n")
    assert "test.csv is not used: it has neither a column `label` nor" in said(opened(tmp_path))


def test_lines_of_a_list_that_name_no_picture_are_counted(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "val.txt").write_text("# names\nimages/9.png\n\nimages/11.png\n")
    assert "val.txt: 1 line names no picture, the first images/11.png." in opened(tmp_path).warnings


def test_lists_are_not_read_where_tables_are_not(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "val.txt").write_text(words(TEN[:8]))
    assert len(opened(tmp_path, tables=False)) == 9 and "Tables are not read (tables=false): val.txt." in said(
        opened(tmp_path, tables=False)
    )
    assert len(opened(tmp_path, split_by="hash")) == 9


@pytest.mark.parametrize(
    "whole",
    [
        {"train": TEN[:7], "val": TEN[7:]},
        {"training": [{"file_name": path} for path in TEN[:7]], "test": [{"file_name": path} for path in TEN[7:]]},
        {path: "train" if path in TEN[:7] else "val" for path in TEN},
        {"images": [{"filename": path, "split": "train" if path in TEN[:7] else "test", "sentences": [{"raw": "a"}]} for path in TEN]},
    ],
)
def test_json_by_split_splits_the_pictures(tmp_path, whole):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "dataset.json").write_text(json.dumps(whole))
    assert shared(tmp_path) == (TEN[:7], TEN[7:]) and not opened(tmp_path).warnings
    assert len(captions(opened(tmp_path))) == (7 if "images" in whole else 0)


# -- columns -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "train", "held"),
    [
        ("dataset", "train", "test"),
        ("set", "train", "val"),
        ("Usage", "Training", "PublicTest"),
        ("phase", "train", "val"),
        ("fold", "train", "test"),
        ("anything", "train", "dev"),
        ("Evaluation Status", "train", "val"),
        ("set", "unlabelled", "test"),
        ("split", "train_a", "test_a"),
        ("is_valid", False, True),
        ("isTest", 0, 1),
        ("is_val", "no", "yes"),
        ("test", "False", "True"),
        ("train", True, False),
        ("is_train", 1, 0),
        ("train", "train", "test"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_columns_of_other_names_that_name_splits_split_the_pictures(tmp_path, column, train, held, form):
    write_pictures(tmp_path, *TEN)
    cells = [train] * 7 + [held] * 3
    if form == "jsonl":
        text = "".join(json.dumps({"file_name": path, column: cell, "label": "a"}) + "\n" for path, cell in zip(TEN, cells, strict=True))
        (tmp_path / "some.jsonl").write_text(text)
    elif form == "csv":
        (tmp_path / "some.csv").write_text(
            f"file_name,{column}\n" + "".join(f"{path},{cell}\n" for path, cell in zip(TEN, cells, strict=True))
        )
    else:
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"file_name": TEN, column: cells}), tmp_path / "some.parquet")
    assert shared(tmp_path) == (TEN[:7], TEN[7:])
    assert f"Splits by the column `{column.casefold().replace(' ', '_')}`: " in opened(tmp_path).remarks[0]


def test_a_column_may_name_a_split_in_each_of_several_tables(tmp_path):
    write_pictures(tmp_path, *TEN)
    for name, paths, cell in (("one", TEN[:7], "train"), ("two", TEN[7:], "test")):
        (tmp_path / f"{name}.csv").write_text("file_name,source\n" + "".join(f"{path},{cell}\n" for path in paths))
    assert shared(tmp_path) == (TEN[:7], TEN[7:])


def test_columns_that_look_like_splits_and_are_none_are_said(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "some.csv").write_text(
        "file_name,label,fold,is_valid,set,source\n" + "".join(f"{path},x,{i % 5},{i > 1},coco,test\n" for i, path in enumerate(TEN))
    )
    dataset = opened(tmp_path)
    assert len(dataset) == 9
    assert "The column `fold` numbers folds of cross-validation, and none of them is held out" in said(dataset)
    assert "The column `is_valid` is true in 8 of 10 rows and taken for what is right, not for what is held out." in said(dataset)
    assert "Columns of some.csv that are not used: fold, is_valid, set and source." in said(dataset)


def test_a_column_that_holds_out_every_picture_stops_with_the_way_on(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "some.csv").write_text("file_name,is_test\n" + "".join(f"{path},1\n" for path in TEN))
    with pytest.raises(DataError, match=r"The column `is_test` holds out every picture.*dataset\.tables=false"):
        opened(tmp_path)


# -- names of files ----------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "held"),
    [
        ("train_{}", "val_{}"),
        ("Train{}", "Test{}"),
        ("cat/training-{}", "dog/holdout-{}"),
        ("COCO_train2014_{:03}", "COCO_val2014_{:03}"),
        ("{}_train", "{}_test"),
        ("trainImage{}", "valImage{}"),
        ("all/trainset{}", "all/testset{}"),
    ],
)
def test_names_of_files_split_the_pictures_where_all_have_words_of_splits(tmp_path, train, held):
    pictures = [*(f"{train.format(i)}.png" for i in range(5)), *(f"{held.format(i)}.png" for i in range(3))]
    write_pictures(tmp_path, *pictures)
    assert [sorted(each) for each in shared(tmp_path)] == [sorted(pictures[:5]), sorted(pictures[5:])]
    assert "Splits by the names of files: " in opened(tmp_path).remarks[0]
    assert "by a hash of each path" in opened(tmp_path, split_by="hash").remarks[0]
    write_pictures(tmp_path, *(f"trainer_{i}.png" for i in range(30)))
    assert "by a hash of each path" in opened(tmp_path).remarks[0]


def test_a_list_of_all_pictures_says_the_split_of_each(tmp_path):
    write_pictures(tmp_path, *TEN)
    splits = {path: "0" if i < 6 else "1" if i < 8 else "2" for i, path in enumerate(TEN)}
    (tmp_path / "list_eval_partition.txt").write_text("".join(f"{path.rpartition('/')[2]} {split}\n" for path, split in splits.items()))
    assert shared(tmp_path) == (TEN[:6], TEN[6:8])
    assert "Splits by the list list_eval_partition.txt: 1 (val) held out" in said(opened(tmp_path))


def test_numbers_in_such_a_list_are_those_of_images_txt(tmp_path):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "images.txt").write_text("".join(f"{i + 1} {path.removeprefix('images/')}\n" for i, path in enumerate(TEN)))
    (tmp_path / "train_test_split.txt").write_text("".join(f"{i + 1} {int(i % 3 > 0)}\n" for i in range(10)))
    assert shared(tmp_path) == ([path for i, path in enumerate(TEN) if i % 3], TEN[::3])
    assert "text files belong to no picture" not in said(opened(tmp_path))


@pytest.mark.parametrize("content", ["a b c\n", "images/0.png 7\n", "nobody 0\nnowhere 1\n", "\n"])
def test_other_texts_of_that_name_decide_nothing(tmp_path, content):
    write_pictures(tmp_path, *TEN)
    (tmp_path / "partition.txt").write_text(content)
    assert sum(map(len, shared(tmp_path))) == 10


@pytest.mark.parametrize("name", ["split.csv", "data_split.txt", "partition.lst"])
@pytest.mark.parametrize(
    "line", ["{name},{split}", '"{name}","{split}"', "{split} images/{name}", "{split}\t{name}\t0", "0 {name} {split}"]
)
def test_the_split_may_stand_after_or_before_the_name_and_without_a_header(tmp_path, name, line):
    write_pictures(tmp_path, *numbered("images", 8))
    splits = ["train"] * 6 + ["test"] * 2
    if name.endswith(".csv") and line.startswith("{split}"):
        line = line.replace(" ", ",").replace("\t", ",")
    (tmp_path / name).write_text("".join(line.format(name=f"{i}.png", split=split) + "\n" for i, split in enumerate(splits)))
    assert (names(opened(tmp_path)), names(opened(tmp_path, "val"))) == (numbered("images", 8)[:6], numbered("images", 8)[6:])
    assert f"Splits by the list {name}: test held out, all other pictures to train on." in said(opened(tmp_path))


@pytest.mark.parametrize(
    ("name", "head", "item"), [("splits.yaml", "{}:", "- images/{}.png"), ("split.txt", "[{}]", "{}.png"), ("split.txt", "# {}", "{}")]
)
def test_the_split_may_stand_above_the_names(tmp_path, name, head, item):
    write_pictures(tmp_path, *numbered("images", 8))
    sides = {"train": range(6), "test": range(6, 8)}
    lines = [line for side, which in sides.items() for line in (head.format(side), *(item.format(i) for i in which))]
    (tmp_path / name).write_text("\n".join(lines))
    dataset = opened(tmp_path)
    assert (names(dataset), names(opened(tmp_path, "val"))) == (numbered("images", 8)[:6], numbered("images", 8)[6:])
    assert not dataset.warnings


@pytest.mark.parametrize(
    "texts", [{"split.txt": "{name} {split}"}, {"splits.csv": "{name},{split},7"}, {"train.txt": "{name} 1", "test.txt": "{name} 0"}]
)
def test_names_with_spaces_are_read_in_lists(tmp_path, texts):
    pictures = [f"images/my photo {i}.png" for i in range(8)]
    write_pictures(tmp_path, *pictures)
    for name, line in texts.items():
        sides = [name.removesuffix(".txt")] if len(texts) > 1 else ["train", "test"]
        which = [(i, split) for split in sides for i in (range(6) if split == "train" else range(6, 8))]
        (tmp_path / name).write_text("".join(line.format(name=f"my photo {i}.png", split=split) + "\n" for i, split in which))
    assert (names(opened(tmp_path)), names(opened(tmp_path, "val"))) == (pictures[:6], pictures[6:])
