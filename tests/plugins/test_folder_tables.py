"""A table's labels and captions reach their pictures, or a sentence says which do not: paths, values, and files that are read strictly."""

import json
import math
import unicodedata

import pytest
from folders import captions, labels, names, numbered, opened, said, write_pictures

from ldmctl.errors import DataError
from ldmctl_plugins.datasets import _tables

SPLIT = [*numbered("train/cat", 3), *numbered("train/dog", 3), *numbered("val/cat", 2), *numbered("val/dog", 2)]


def write_rows(path, rows):
    """A table of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def written(path, text, encoding="utf-8"):
    """A table as text."""
    path.write_bytes(text.encode(encoding))


# -- paths -------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [str.upper, lambda name: name.replace("/", "\\"), lambda name: f"./{name}", lambda name: f" {name} "])
def test_a_path_in_another_spelling_is_the_picture_that_it_alone_can_mean(tmp_path, spelling):
    write_pictures(tmp_path, *SPLIT)
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": spelling(name), "label": f"l{i}"} for i, name in enumerate(SPLIT)])
    found = labels(opened(tmp_path)) | labels(opened(tmp_path, "val"))
    assert found == {name: f"l{i}" for i, name in enumerate(SPLIT)}


def test_paths_with_and_without_the_folder_of_the_split_are_matched(tmp_path):
    write_pictures(tmp_path, *numbered("train/cat", 3), *(f"val/cat/{i}.png" for i in (7, 8)))
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": f"cat/{i}.png", "label": "a"} for i in (0, 1, 2, 7, 8)])
    assert len(labels(opened(tmp_path))) == 3 and len(labels(opened(tmp_path, "val"))) == 2
    (tmp_path / "metadata.jsonl").unlink()
    for split, rows in (("train", (0, 1, 2)), ("val", (7, 8))):
        write_rows(tmp_path / split / "metadata.jsonl", [{"file_name": f"{split}/cat/{i}.png", "label": "a"} for i in rows])
    assert len(labels(opened(tmp_path))) == 3 and len(labels(opened(tmp_path, "val"))) == 2
    assert "5 rows name a picture in another spelling" in said(opened(tmp_path))


def test_decomposed_unicode_is_the_same_name(tmp_path):
    write_pictures(tmp_path, *(unicodedata.normalize("NFD", f"train/café{i}.png") for i in range(2)), "val/ü.png")
    write_rows(
        tmp_path / "metadata.jsonl", [{"file_name": name, "text": name} for name in ("train/café0.png", "train/café1.png", "val/ü.png")]
    )
    assert len(captions(opened(tmp_path))) == 2 and len(captions(opened(tmp_path, "val"))) == 1


@pytest.mark.parametrize("name", ["7", "7.png", "7.PNG"])
def test_bare_names_find_pictures_in_folders_where_only_one_is_called_so(tmp_path, name):
    write_pictures(tmp_path, "images/a/7.png", "images/b/8.png")
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": name, "label": "x"}, {"file_name": "8", "label": "y"}])
    assert labels(opened(tmp_path, val_share=0)) == {"images/a/7.png": "x", "images/b/8.png": "y"}


def test_a_row_that_fits_two_pictures_is_given_to_neither(tmp_path):
    write_pictures(tmp_path, "train/1.png", "train/2.png", "val/1.png")
    write_rows(
        tmp_path / "metadata.jsonl",
        [{"file_name": "1.png", "label": "x"}, {"file_name": "train/2.png", "label": "y"}, {"file_name": "val/1.png", "label": "z"}],
    )
    train = opened(tmp_path)
    assert labels(train) == {"train/1.png": "x", "train/2.png": "y"}  # val/1.png has its own row
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "1.png", "label": "x"}, {"file_name": "train/2.png", "label": "y"}])
    with pytest.raises(DataError, match=r"None of the 1 picture of val has a row"):
        opened(tmp_path)
    write_pictures(tmp_path, "val/3.png")
    write_rows(
        tmp_path / "metadata.jsonl",
        [{"file_name": "1.png", "label": "x"}, {"file_name": "train/2.png", "label": "y"}, {"file_name": "val/3.png", "label": "y"}],
    )
    train = opened(tmp_path)
    assert labels(train) == {"train/2.png": "y"}
    assert (
        "1 row fits several pictures and is not used: the first is line 1 of metadata.jsonl, 1.png, which may be train/1.png and val/1.png."
        in said(train)
    )


def test_a_row_of_a_missing_picture_is_not_given_to_that_of_another_split(tmp_path):
    write_pictures(tmp_path, "train/1.png", "val/2.png")
    write_rows(tmp_path / "train" / "metadata.jsonl", [{"file_name": "1.png", "label": "x"}, {"file_name": "2.png", "label": "y"}])
    with pytest.raises(DataError, match="None of the 1 picture of val has a row"):
        opened(tmp_path)


def test_a_held_out_split_without_a_row_stops_unless_the_table_lies_with_the_training_pictures(tmp_path):
    write_pictures(tmp_path, *SPLIT)
    rows = [{"file_name": name, "label": "x"} for name in SPLIT[:6]]
    write_rows(tmp_path / "metadata.jsonl", rows)
    for split in ("train", "val"):
        with pytest.raises(
            DataError, match=r"None of the 4 pictures of val has a row.*Where val is to have none, move the table into train/\."
        ):
            opened(tmp_path, split)
    (tmp_path / "metadata.jsonl").rename(tmp_path / "train" / "metadata.jsonl")
    assert opened(tmp_path).counts["labels"] == 6 and opened(tmp_path, "val").counts["labels"] == 0
    assert "4 of 10 pictures have no row (0 of 6 in train, 4 of 4 in val" in said(opened(tmp_path))


def test_half_a_table_is_counted_with_the_first_of_each(tmp_path):
    write_pictures(tmp_path, *SPLIT)
    rows = [{"file_name": name, "label": "x"} for name in SPLIT[::2]] + [{"file_name": f"gone/{i}.png", "label": "x"} for i in range(3)]
    write_rows(tmp_path / "metadata.jsonl", rows)
    dataset = opened(tmp_path)
    assert (
        "metadata.jsonl: 5 of 10 pictures have no row (3 of 6 in train, 2 of 4 in val; the first is train/cat/1.png), "
        "3 rows name no picture (the first is line 6 of metadata.jsonl: gone/0.png)." in dataset.warnings
    )
    assert dataset.counts == {"labels": 3, "captions": 0}


def test_a_split_without_a_row_stops_and_says_what_the_rows_name(tmp_path):
    write_pictures(tmp_path, *SPLIT)
    rows = [{"file_name": name.replace("train/cat", "elsewhere").replace("train/dog", "nowhere"), "label": "x"} for name in SPLIT]
    write_rows(tmp_path / "metadata.jsonl", rows)
    with pytest.raises(
        DataError, match=r"None of the 6 pictures of train has a row in metadata\.jsonl.*line 1 of metadata\.jsonl: elsewhere/0\.png"
    ) as caught:
        opened(tmp_path)
    assert caught.value.exit_code == 3 and "dataset.tables=false" in str(caught.value)
    assert opened(tmp_path, tables=False).classes == ["cat", "dog"]


@pytest.mark.parametrize("table", ["metadata.csv", "tables/metadata.csv", "train/metadata.csv", "labels.csv"])
@pytest.mark.parametrize("way", ["absolute", "linked", "up"])
def test_absolute_paths_and_paths_that_go_up_are_read_where_they_stay_inside(tmp_path, table, way):
    root = write_pictures(tmp_path / "set", *numbered("train", 2), "val/0.png", "train/val/0.png")
    (tmp_path / "link").symlink_to(root)
    (root / table).parent.mkdir(exist_ok=True)
    starts = {"absolute": root, "linked": tmp_path / "link", "up": "x/.." + "/.." * table.count("/")}
    rows = [("train/0.png", "a"), ("train/1.png", "b"), ("val/0.png", "c")]
    (root / table).write_text("file_name,label\n" + "".join(f"{starts[way]}/{name},{label}\n" for name, label in rows))
    root = tmp_path / "link" if way == "linked" else root
    assert labels(opened(root)) == {"train/0.png": "a", "train/1.png": "b"} and labels(opened(root, "val")) == {"val/0.png": "c"}


@pytest.mark.parametrize("name", ["{root}/../other/0.png", "{root}x/0.png", "../../0.png", "..", "{root}/"])
def test_a_path_that_leads_out_of_the_set_is_refused_and_the_set_is_named(tmp_path, name):
    root = write_pictures(tmp_path / "set", "train/0.png", "val/0.png")
    (root / "tables").mkdir()
    name = name.format(root=root)
    (root / "tables" / "metadata.csv").write_text(f"file_name,label\n{name},a\n")
    with pytest.raises(DataError) as caught:
        opened(root)
    assert str(caught.value) == f"{root}/tables/metadata.csv, line 2: {name!r} must be a path inside {root}."


@pytest.mark.parametrize("names_of", [(0, 1, 2), (0.0, 1.0, 2.0), ("0", "1", "2")])
@pytest.mark.parametrize("picture", ["{}.png", "{:03}.png", "images/{:05}.png"])
def test_numbers_name_pictures(tmp_path, names_of, picture):
    write_pictures(tmp_path, *(picture.format(i) for i in range(3)))
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": name, "label": "abc"[i]} for i, name in enumerate(names_of)])
    assert labels(opened(tmp_path, val_share=0)) == {picture.format(i): "abc"[i] for i in range(3)}


def test_a_number_that_may_mean_several_pictures_is_that_of_none(tmp_path):
    write_pictures(tmp_path, "007.png", "0007.png", "0008.png")
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": 7, "label": "a"}, {"file_name": 8, "label": "b"}])
    dataset = opened(tmp_path, val_share=0)
    assert labels(dataset) == {"0008.png": "b"} and "1 row fits several pictures and is not used" in said(dataset)


@pytest.mark.parametrize("column", ["image_id", "Image Name", "img", "id", "image"])
@pytest.mark.parametrize("name", ["{:03}.png", "{:03}"])
def test_other_columns_name_pictures_where_all_their_values_do(tmp_path, column, name):
    write_pictures(tmp_path, *(f"img/img/{i:03}.png" for i in range(4)))
    (tmp_path / "parts.csv").write_text(f"{column},partition,label\n" + "".join(f"{name.format(i)},{i // 2},x\n" for i in range(4)))
    assert names(opened(tmp_path, "val")) == ["img/img/002.png", "img/img/003.png"] and len(labels(opened(tmp_path))) == 2
    assert not opened(tmp_path).warnings and "not used" not in said(opened(tmp_path))
    (tmp_path / "parts.csv").write_text(f"{column},label\n000,x\nelse,y\n")
    assert "parts.csv is not used: line 2: `file_name` is missing" in said(opened(tmp_path))


# -- splits ------------------------------------------------------------------


@pytest.mark.parametrize("column", ["split", "Subset", "data set"])
def test_a_column_that_names_splits_splits_the_pictures(tmp_path, column):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(10)))
    values = ["train"] * 5 + ["valid"] * 2 + ["test"] * 2 + [""]
    (tmp_path / "metadata.csv").write_text(
        f"file_name,label,{column}\n" + "".join(f"{i}.png,x,{value}\n" for i, value in enumerate(values))
    )
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert names(train) == ["0.png", "1.png", "2.png", "3.png", "4.png"] and names(held) == ["5.png", "6.png"]
    assert "valid held out, all other pictures to train on." in train.remarks[0]
    assert "1 picture in no split of the column `" in said(train) and "is left out, the first 9.png." in said(train)
    assert "2 pictures of `test` are left out, because valid is held out already." in train.warnings


THREE = ("train/0.png", "train/1.png", "val/2.png")


def split_table(folder, **values):
    """metadata.jsonl with a row for each of THREE, `split` by number."""
    write_rows(folder / "metadata.jsonl", [{"file_name": name, "split": values[f"of{i}"]} for i, name in enumerate(THREE)])


def test_a_picture_that_folder_or_column_holds_out_is_not_trained_on(tmp_path):
    write_pictures(tmp_path, *THREE)
    split_table(tmp_path, of0="test", of1="train", of2="train")
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert names(train) == ["train/1.png"] and names(held) == ["val/2.png"]
    sentence = "1 picture of train by its folder is held out by the column `split` and left out: the first is train/0.png, test."
    assert sentence in train.warnings and sentence in held.warnings
    split_table(tmp_path, of0="val", of1="dev", of2="val")
    with pytest.raises(DataError, match="The column `split` holds out every picture; none is left to train on"):
        opened(tmp_path)
    assert names(opened(tmp_path, split_by="hash", val_share=0)) == list(THREE), "a person who asks for a hash gets one"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (("1", "2", "3"), "1, 2 and 3 are no usual names of splits. 1 picture has 1, 1 has 2 and 1 has 3: write train"),
        (
            ("public", "private", "public"),
            "private and public are no usual names of splits. 1 picture has private and 2 have public: write train",
        ),
        (("all", "all", "all"), "all is no usual name of a split. 3 pictures have all: write train"),
    ],
)
def test_what_a_column_of_no_usual_names_says_is_told_with_what_it_would_have_to_say(tmp_path, values, found):
    write_pictures(tmp_path, *THREE)
    split_table(tmp_path, of0=values[0], of1=values[1], of2=values[2])
    assert f"The column `split` is not used: {found} in place of what names pictures to train on" in said(opened(tmp_path))


def test_a_column_of_no_usual_names_is_not_used_and_one_of_some_holds_out_those(tmp_path):
    write_pictures(tmp_path, *THREE)
    split_table(tmp_path, of0="fold 7", of1="fold 7", of2="fold 8")
    assert "The column `split` is not used: fold 7 and fold 8 are no usual names of splits." in said(opened(tmp_path))
    assert "2 pictures have fold 7 and 1 has fold 8: write train in place of what names pictures to train on, and val or test" in said(
        opened(tmp_path)
    )
    assert names(opened(tmp_path)) == list(THREE[:2])
    split_table(tmp_path, of0="test_b", of1="extra", of2="test")
    assert names(opened(tmp_path)) == ["train/1.png"]
    assert "extra in the column `split` is no usual name of a split: its pictures are trained on." in said(opened(tmp_path))


def test_a_picture_that_any_row_holds_out_is_not_trained_on(tmp_path):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = [
        {"file_name": "0.png", "split": "val"},
        {"file_name": "0.png", "split": "train"},
        {"file_name": "1.png", "split": "train", "subset": "val"},
    ]
    write_rows(tmp_path / "metadata.jsonl", rows)
    (tmp_path / "more.csv").write_text("file_name,split\n2.png,validation\n3.png,train\n")
    write_rows(tmp_path / "metadata.jsonl", [*rows, {"file_name": "2.png", "split": "train"}])
    assert names(opened(tmp_path)) == ["3.png"] and names(opened(tmp_path, "val")) == ["0.png", "1.png", "2.png"]


def test_a_column_knows_a_file_by_any_of_its_names(tmp_path):
    write_pictures(tmp_path, *THREE)
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "zero.png").hardlink_to(tmp_path / "train" / "0.png")
    write_rows(
        tmp_path / "metadata.jsonl",
        [{"file_name": "all/zero.png", "split": "test"}, *({"file_name": name, "split": "train"} for name in THREE[1:])],
    )
    assert names(opened(tmp_path)) == ["train/1.png"]


def test_a_picture_that_a_doubtful_row_may_hold_out_is_not_trained_on(tmp_path):
    write_pictures(tmp_path, "train/a/0.png", "train/b/0.png", "train/b/1.png", "val/a/2.png")
    write_rows(
        tmp_path / "metadata.jsonl",
        [{"file_name": "0.png", "split": "test"}, *({"file_name": name, "split": "x"} for name in ("train/b/1.png", "val/a/2.png"))],
    )
    dataset = opened(tmp_path)
    assert "1 row fits several pictures and is not used" in said(dataset)
    sentence = (
        "2 pictures of train by their folders are perhaps held out by the column `split`, in a row that fits several pictures, and left out"
    )
    assert names(dataset) == ["train/b/1.png"] and sentence in said(dataset)


@pytest.mark.parametrize("column", ["partition", "split"])
@pytest.mark.parametrize("codes", ["012", [0, 1, 2], [0.0, 1.0, 2.0], ["0.0", " 1", "2"], [[0], [1], [2]]])
def test_numbers_as_celeba_has_them_split_the_pictures(tmp_path, column, codes):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(3)))
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": f"{i}.png", column: code} for i, code in enumerate(codes)])
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert names(train) == ["0.png"] and names(held) == ["1.png"]
    assert train.remarks[0] == f"Splits by the column `{column}`: 1 (val) held out, all other pictures to train on."
    assert "1 picture of `2 (test)` is left out, because 1 (val) is held out already." in train.warnings


def test_numbers_of_parquet_and_of_csv_split_the_pictures_too(tmp_path):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    (tmp_path / "parts.csv").write_text("file_name,partition\n0.png,0\n1.png,0\n2.png,2\n3.png,2\n")
    assert names(opened(tmp_path, "val")) == ["2.png", "3.png"]
    (tmp_path / "parts.csv").unlink()
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"file_name": [f"{i}.png" for i in range(4)], "partition": [0, None, 1, 2]}), tmp_path / "a.parquet")
    assert names(opened(tmp_path)) == ["0.png"] and names(opened(tmp_path, "val")) == ["2.png"]
    assert "1 picture in no split of the column `partition` is left out, the first 1.png." in said(opened(tmp_path))


@pytest.mark.parametrize(
    ("values", "words"),
    [((1, 2, 3), "1, 2 and 3 are"), ((True, False, True), "False and True are"), ((2, 2, None), "2 is"), ((0, 5, math.nan), "0 and 5 are")],
)
def test_a_column_of_splits_that_is_no_text_is_named_where_it_is_not_used(tmp_path, values, words):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(3)))
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": f"{i}.png", "split": value} for i, value in enumerate(values)])
    assert f"The column `split` is not used: {words} no usual name" in said(opened(tmp_path, val_share=0))


def test_a_picture_that_a_list_of_splits_holds_out_is_not_trained_on(tmp_path):
    write_pictures(tmp_path, "0.png", "1.png")
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "0.png", "split": ["train", "val"]}, {"file_name": "1.png", "split": ["train"]}])
    assert names(opened(tmp_path)) == ["1.png"] and names(opened(tmp_path, "val")) == ["0.png"]


# -- values ------------------------------------------------------------------


def test_captions_alone_leave_the_classes_to_the_folders(tmp_path):
    write_pictures(tmp_path, *SPLIT)
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": name, "text": f"this is {name}"} for name in SPLIT])
    train = opened(tmp_path)
    assert train.classes == ["cat", "dog"] and train.counts == {"labels": 6, "captions": 6}


@pytest.mark.parametrize("nothing", ["NaN", "null", '""', '" "', '"nan"', '"NaN"', '"null"', '"N/A"', '"#N/A"', '"<NA>"', '"NaT"'])
def test_what_is_no_value_is_no_label_and_no_caption(tmp_path, nothing):
    write_pictures(tmp_path, "1.png", "2.png")
    (tmp_path / "metadata.jsonl").write_text(
        f'{{"file_name": "1.png", "label": {nothing}, "text": {nothing}}}\n{{"file_name": "2.png", "label": "cat", "text": "a cat"}}\n'
    )
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == ["cat"] and captions(dataset) == {"2.png": "a cat"} and dataset.counts == {"labels": 1, "captions": 1}


def test_empty_and_nan_cells_of_csv_are_no_label(tmp_path):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    (tmp_path / "metadata.csv").write_text("file_name,label,text\n0.png,1.0,\n1.png,nan,nan\n2.png,,NaN\n3.png,1,one\n")
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == ["1"] and dataset.counts == {"labels": 2, "captions": 1}


def test_none_and_nat_are_names_of_classes(tmp_path):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(3)))
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,none\n1.png,Nat\n2.png,N/A\n")
    assert labels(opened(tmp_path, val_share=0)) == {"0.png": "none", "1.png": "Nat"}


def test_one_class_is_one_class_however_it_is_written(tmp_path):
    cases = [
        [1, 1.0, "1", "1.0", " 1 "],
        ["cat", "cat ", "\tcat"],
        ["caf\u00e9", "cafe\u0301"],
        [0, -0.0, "0"],
        [True, "true", "True", "TRUE"],
        [False, "false"],
    ]
    for number, case in enumerate(cases):
        folder = write_pictures(tmp_path / str(number), *(f"{i}.png" for i in range(len(case))))
        write_rows(folder / "metadata.jsonl", [{"file_name": f"{i}.png", "label": value} for i, value in enumerate(case)])
        dataset = opened(folder, val_share=0)
        assert len(dataset.classes) == 1 and dataset.counts["labels"] == len(case), case


def test_class_folders_in_two_unicode_forms_are_one_class(tmp_path):
    write_pictures(tmp_path, "train/caf\u00e9/1.png", "train/dog/1.png", "val/cafe\u0301/1.png", "val/dog /1.png")
    assert opened(tmp_path).classes == ["caf\u00e9", "dog"] == opened(tmp_path, "val").classes
    assert len(labels(opened(tmp_path, "val"))) == 2


def test_every_caption_of_a_list_of_several_rows_and_of_a_side_file_is_kept(tmp_path):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = [
        {"file_name": "0.png", "text": ["one", "two", None, "one"]},
        {"file_name": "1.png", "text": "first"},
        {"file_name": "1.png", "text": "second"},
        {"file_name": "2.png", "text": "text", "caption": "caption", "prompt": ""},
    ]
    write_rows(tmp_path / "metadata.jsonl", rows)
    (tmp_path / "1.txt").write_text("third")
    (tmp_path / "3.txt").write_text("beside")
    dataset = opened(tmp_path, val_share=0)
    assert [dataset.captions(i) for i in range(4)] == [("one", "two"), ("first", "second", "third"), ("text", "caption"), ("beside",)]
    assert [dataset.note(i)[1] for i in range(4)] == ["one", "first", "text", "beside"]
    assert "3 pictures of train have several captions: the cache keeps all, the first is `text`." in said(dataset)


def test_two_labels_of_one_picture_are_said(tmp_path):
    write_pictures(tmp_path, "1.png", "2.png")
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "1.png", "label": each} for each in ("cat", "dog")])
    dataset = opened(tmp_path, val_share=0)
    assert labels(dataset) == {"1.png": "dog"} and "1 picture has two labels, and the last is taken: 1.png is cat and dog." in said(dataset)


# -- CSV ---------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_is_read_with_any_usual_delimiter_and_spaces_in_its_header(tmp_path, mark, encoding):
    write_pictures(tmp_path, "1.png", "2.png")
    header = f"{mark} ".join(("File Name", "label ", " text"))
    rows = [f'1.png{mark}cat{mark}"é{mark} one ""cat"""', f"2.png{mark}dog{mark}"]
    written(tmp_path / "metadata.csv", "\r\n".join([header, *rows, ""]), encoding)
    dataset = opened(tmp_path, val_share=0)
    assert labels(dataset) == {"1.png": "cat", "2.png": "dog"} and captions(dataset) == {"1.png": f'é{mark} one "cat"'}


def test_a_field_of_any_length_is_read(tmp_path):
    write_pictures(tmp_path, "1.png")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n1.png,{'long ' * 40_000}end\n")
    assert len(captions(opened(tmp_path, val_share=0))["1.png"]) == 200_003


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0.png,x,one", '1.png,x,"two', *(f"{i}.png,x,three" for i in range(2, 24))], "line 3 opens a quote that nothing closes"),
        (["0.png,x,one", '1.png,x,"two', *(f'{i}.png,x,"three"' for i in range(2, 24))], "line 3 is not CSV"),
        (
            ['0.png,x,"one', "1.png,x,two", '2.png,x,three"'],
            r"line 2 opens a quote that is closed only in line 4.*looks like a row: '1\.png,x,two'",
        ),
        (["0.png,x,one", '1.png,"x', 'sub/2.PNG,"",y'], "line 3 opens a quote"),
        (["0.png,x,one, two, three"], "line 2 has 5 fields, the header has 3"),
        (["0.png,x,one", "1.png,x"], "line 3 has 2 fields, the header has 3"),
    ],
)
def test_csv_that_would_lose_rows_or_words_is_refused_with_its_line(tmp_path, rows, words):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(24)))
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label,text", *rows]) + "\n")
    with pytest.raises(DataError, match=words):
        opened(tmp_path)


def test_a_quoted_text_of_several_lines_is_a_caption(tmp_path):
    write_pictures(tmp_path, "0.png", "1.png")
    (tmp_path / "metadata.csv").write_text('file_name,text\n0.png,"one,\ntwo, three\n1.png"\n1.png,four\n')
    assert captions(opened(tmp_path, val_share=0)) == {"0.png": "one,\ntwo, three\n1.png", "1.png": "four"}


@pytest.mark.parametrize(("header", "row"), [("label,file_name", "b,1.png"), ("text;file", "two;1.png")])
def test_a_row_in_a_quote_is_known_by_the_column_of_names(tmp_path, header, row):
    write_pictures(tmp_path, "0.png", "1.png", "2.png")
    mark = ";" if ";" in header else ","
    (tmp_path / "metadata.csv").write_text(f'{header}\n"a{mark}0.png\n{row}\nc"{mark}2.png\n')
    with pytest.raises(DataError, match=r"metadata\.csv, line 2 opens a quote that is closed only in line 4"):
        opened(tmp_path)


def test_a_table_in_another_encoding_is_refused_with_its_line(tmp_path):
    write_pictures(tmp_path, "1.png")
    written(tmp_path / "metadata.csv", "file_name,text\n1.png,fiancé\n", "latin-1")
    with pytest.raises(DataError, match=r"metadata\.csv, line 2 is not UTF-8"):
        opened(tmp_path)


# -- other tables ------------------------------------------------------------

FORMS = {
    "metadata.json": json.dumps([{"file_name": f"{i}.png", "label": "ab"[i]} for i in range(2)]),
    "Metadata.JSON": json.dumps({f"{i}.png": {"label": "ab"[i]} for i in range(2)}),
    "dataset.json": json.dumps({"labels": [["0.png", "a"], ["1.png", "b"]]}),
    "labels.json": json.dumps({"0.png": "a", "1.png": "b"}),
    "labels.csv": "filename,label\n0.png,a\n1.png,b\n",
    "all.tsv": "path\tlabel\n0.png\ta\n1.png\tb\n",
    "some.jsonl": '{"file": "0.png", "label": "a"}\n{"file": "1.png", "label": "b"}\n',
    "metadata.ndjson": '{"file_name": "0.png", "label": "a"}\n{"file_name": "1.png", "label": "b"}\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_tables_of_other_forms_and_names_are_read(tmp_path, name):
    write_pictures(tmp_path, "0.png", "1.png")
    (tmp_path / name).write_text(FORMS[name])
    dataset = opened(tmp_path, val_share=0)
    assert labels(dataset) == {"0.png": "a", "1.png": "b"} and f"Labels and captions from {name}: 2 rows." in said(dataset)


def test_labels_of_one_table_and_captions_of_another_join(tmp_path):
    write_pictures(tmp_path, "0.png", "1.png")
    (tmp_path / "labels.csv").write_text("file_name,label\n0.png,a\n1.png,b\n")
    write_rows(tmp_path / "captions.jsonl", [{"file_name": f"{i}.png", "caption": f"number {i}"} for i in range(2)])
    assert opened(tmp_path, val_share=0).counts == {"labels": 2, "captions": 2}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("index.csv", "id,url\n1,http\n", "index.csv is not used: line 2: `file_name` is missing; found id and url."),
        ("labels.csv", "file_name,class\n0.png,a\n", "labels.csv is not used: it has neither a column `label` nor one of"),
        ("metadata.csv", "file_name,boxes\n0.png,a\n", "metadata.csv is not used: it has neither a column `label` nor one of"),
        ("other.csv", "file_name,label\n7.png,a\n", "other.csv is not used: it names none of the pictures (its first is 7.png)."),
        ("broken.json", "{", "broken.json is not used: is not JSON"),
    ],
)
def test_tables_that_are_not_used_are_named(tmp_path, name, text, words):
    write_pictures(tmp_path, "0.png", "1.png")
    (tmp_path / name).write_text(text)
    assert any(words in warning for warning in opened(tmp_path, val_share=0).warnings)


CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog "}]


def coco(folder, name, annotations, **more):
    """A file as COCO has it, of pictures 0 to 2 of train/ and 3 of val/, which it names without their folders."""
    (folder / "annotations").mkdir(exist_ok=True)
    images = [{"id": 10 + i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in range(4)]
    whole = {"info": {}, "licenses": [], "images": images, "annotations": annotations, **more}
    (folder / "annotations" / name).write_text(json.dumps(whole))


def test_captions_and_single_categories_of_coco_are_read(tmp_path):
    write_pictures(tmp_path, "train/0.png", "train/1.png", "train/2.png", "val/3.png")
    told = [(10, "a cat"), (11, "one"), (11, "two"), (12, " spaced "), (13, "held out")]
    coco(tmp_path, "captions.json", [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(told)])
    shown = [{"id": i, "image_id": 10 + i, "category_id": kind, "bbox": [0, 0, 1, 1]} for i, kind in enumerate([3, 7, 3, 7])]
    coco(tmp_path, "instances.json", [*shown, {**shown[0], "id": 9}], categories=CATEGORIES)
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert labels(train) == {"train/0.png": "cat", "train/1.png": "dog", "train/2.png": "cat"} and labels(held) == {"val/3.png": "dog"}
    assert captions(train) == {"train/0.png": "a cat", "train/1.png": "one", "train/2.png": "spaced"} and train.captions(1) == (
        "one",
        "two",
    )
    assert captions(held) == {"val/3.png": "held out"}


def test_categories_of_which_a_picture_has_several_are_no_labels_and_named(tmp_path):
    write_pictures(tmp_path, "train/0.png", "train/1.png", "train/2.png", "val/3.png")
    shown = [{"id": i, "image_id": image, "category_id": kind} for i, (image, kind) in enumerate([(10, 3), (10, 7), (11, 3)])]
    coco(tmp_path, "instances.json", shown, categories=CATEGORIES)
    dataset = opened(tmp_path)
    assert not labels(dataset) and "instances.json is not used: it has neither a column `label`" in said(dataset)
    coco(tmp_path, "instances.json", [*shown, *({"image_id": 10 + i, "caption": f"no. {i}"} for i in range(4))], categories=CATEGORIES)
    dataset = opened(tmp_path)
    assert not labels(dataset) and len(captions(dataset)) == 3 and "that are not used: categories" in said(dataset)


@pytest.mark.parametrize("wrong", [[7], [{"caption": "x"}], [{"image_id": [], "caption": "x"}]])
def test_what_is_no_coco_is_named(tmp_path, wrong):
    write_pictures(tmp_path, "train/0.png", "val/3.png")
    coco(tmp_path, "x.json", wrong)
    assert "x.json is not used: images and annotations are there, but not as COCO has them" in said(opened(tmp_path))


def test_columns_that_are_not_used_are_named(tmp_path):
    write_pictures(tmp_path, "0.png")
    (tmp_path / "metadata.csv").write_text("file_name,class,text\n0.png,a,b\n")
    assert "Columns of metadata.csv that are not used: class." in said(opened(tmp_path, val_share=0))


def test_parquet_is_read_where_pyarrow_is_and_named_where_it_is_not(tmp_path, monkeypatch):
    write_pictures(tmp_path, "0.png", "1.png")
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and no more")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert any("metadata.parquet is not read: that needs pyarrow" in each for each in opened(tmp_path, val_share=0).warnings)
    monkeypatch.undo()
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    with pytest.raises(DataError, match=r"metadata\.parquet is not Parquet"):
        opened(tmp_path, val_share=0)
    table = pyarrow.table({"file_name": ["0.png", "1.png"], "label": [1, None], "text": [["a", "b"], None], "size": [[1], [2]]})
    parquet.write_table(table, tmp_path / "metadata.parquet")
    dataset = opened(tmp_path, val_share=0)
    assert labels(dataset) == {"0.png": "1"} and dataset.captions(0) == ("a", "b") and "not used: size" in said(dataset)


def test_json_beside_each_picture_is_no_table(tmp_path):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(3)))
    for i in range(3):
        (tmp_path / f"{i}.json").write_text(json.dumps({"url": "x"}))
    dataset = opened(tmp_path, val_share=0)
    assert not dataset.warnings and "Files beside pictures that are not read: 3 .json." in said(dataset)


def test_a_table_with_the_name_of_a_picture_beside_it_is_read(tmp_path):
    write_pictures(tmp_path, "train.png", "0.png", "1.png")
    (tmp_path / "train.csv").write_text("file_name,label\n0.png,cat\n1.png,dog\n")
    dataset = opened(tmp_path, val_share=0)
    assert labels(dataset) == {"0.png": "cat", "1.png": "dog"} and "from train.csv: 2 rows." in said(dataset)
    (tmp_path / "train.csv").write_text("x,y\n1,2\n")
    assert "train.csv is not used: " in said(opened(tmp_path, val_share=0))


def test_tables_beside_each_picture_are_counted_in_one_sentence(tmp_path):
    write_pictures(tmp_path, *(f"{i}.png" for i in range(9)))
    for i in range(9):
        (tmp_path / f"{i}.csv").write_text("x,y\n1,2\n")
    sentence = "9 tables have the names of pictures beside them and are not read, the first 0.csv. "
    assert opened(tmp_path, val_share=0).warnings == [f"{sentence}A table of many pictures has another name, such as metadata.csv."]


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 5_000, "\ud800"])
def test_json_of_any_kind_is_no_traceback(tmp_path, value):
    write_pictures(tmp_path, "0.png")
    (tmp_path / "metadata.jsonl").write_bytes(f'{{"file_name": "0.png", "label": {value}}}\n'.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match="line 1"):
        opened(tmp_path)
    assert names(opened(tmp_path, val_share=0, tables=False)) == ["0.png"]


@pytest.mark.parametrize(
    ("suffix", "text", "words"),
    [
        ("json", '{"shapes": [], "imagePath": "%d.png"}', "a list of objects with `file_name` was expected"),
        ("csv", "x,y\n1,%d\n", "line 2: `file_name` is missing; found x and y."),
        ("tsv", "file_name\tlabel\nelse%d.png\tx\n", "it names none of the pictures (its first is else0.png)."),
        ("jsonl", '{"file_name": "%d.png", "box": 1}', "it has neither a column `label` nor one of `text`"),
    ],
)
def test_tables_that_are_not_used_for_one_reason_are_counted_in_one_sentence(tmp_path, suffix, text, words):
    write_pictures(tmp_path, *(f"images/{i}.png" for i in range(12)))
    (tmp_path / "boxes").mkdir()
    for i in range(12):
        (tmp_path / "boxes" / f"{i}.{suffix}").write_text(text % i)
    (sentence,) = opened(tmp_path, val_share=0).warnings
    assert sentence.startswith(f"12 tables are not used, the first boxes/0.{suffix}: {words}")


def test_of_many_tables_that_are_none_a_few_are_opened_once(tmp_path, monkeypatch):
    write_pictures(tmp_path, *(f"images/{i}.png" for i in range(100)))
    (tmp_path / "boxes").mkdir()
    for i in range(100):
        (tmp_path / "boxes" / f"{i}.json").write_text('{"shapes": [], "mask": ""}')
    read, looked = _tables.read, []
    monkeypatch.setattr(_tables, "read", lambda root, path, known: looked.append(path) or read(root, path, known))
    (sentence,) = opened(tmp_path, val_share=0).warnings
    assert sentence.startswith("100 tables are not used, the first boxes/0.json: ") and len(looked) == 16


@pytest.mark.parametrize("above", ["sep={mark}\n", "# made by hand\n# twice\n", "\n", "#"])
@pytest.mark.parametrize("mark", [",", ";"])
def test_what_programs_write_above_the_header_of_csv_is_passed_over(tmp_path, above, mark):
    write_pictures(tmp_path, *numbered("images", 8))
    rows = [["file_name", "label", "split"], *([f"images/{i}.png", "a", "train" if i < 6 else "test"] for i in range(8))]
    (tmp_path / "labels.csv").write_text(above.format(mark=mark) + "".join(mark.join(row) + "\n" for row in rows))
    assert (names(opened(tmp_path)), len(labels(opened(tmp_path, "val")))) == (numbered("images", 8)[:6], 2)
    (tmp_path / "labels.csv").write_text("#image_id,label,split\n" + "".join(",".join(row) + "\n" for row in rows[1:]))
    assert names(opened(tmp_path)) == numbered("images", 8)[:6]


def test_the_line_of_an_error_counts_what_stands_above_the_header(tmp_path):
    write_pictures(tmp_path, "0.png")
    (tmp_path / "metadata.csv").write_text("sep=;\n# a\nfile_name;label\n0.png;a;b;c\n")
    with pytest.raises(DataError, match=r"line 4 has 4 fields, the header has 2: file_name and label"):
        opened(tmp_path)


@pytest.mark.parametrize(("column", "train", "held"), [("split", "tr", "te"), ("Split", "TR", "VA"), ("is_test", "", "x")])
def test_short_words_in_a_column_of_splits_are_understood(tmp_path, column, train, held):
    write_pictures(tmp_path, *numbered("images", 8))
    rows = "".join(f"{i}.png,a,{train if i < 6 else held}\n" for i in range(8))
    (tmp_path / "labels.csv").write_text(f"file_name,label,{column}\n{rows}")
    assert (names(opened(tmp_path)), names(opened(tmp_path, "val"))) == (numbered("images", 8)[:6], numbered("images", 8)[6:])
