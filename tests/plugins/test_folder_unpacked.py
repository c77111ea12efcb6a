"""More data sets as they are published and unpacked: what was lost, mixed or taken for something else before."""

import json

import pytest
from folders import captions, each, labels, names, opened, said, shared, write_pictures, write_texts

KINDS = ("apple_pie", "sushi")


def food(root):
    """Pictures of two classes."""
    return write_pictures(root, *(path for kind in KINDS for path in each(f"images/{kind}", 4)))


# -- JSON ----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["files by class", "by split and class", "by class and split", "rows by split"])
@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_names_of_pictures_by_class_and_split_in_json_split_and_label_them(tmp_path, form, ending):
    root = food(tmp_path)
    sides = {"train": range(3), "test": range(3, 4)}
    paths = {side: {kind: [f"{kind}/{i}{ending}" for i in which] for kind in KINDS} for side, which in sides.items()}
    if form == "files by class":
        write_texts(root, {f"meta/{side}.json": json.dumps(paths[side]) for side in paths})
    elif form == "by split and class":
        write_texts(root, {"split.json": json.dumps(paths)})
    elif form == "by class and split":
        write_texts(root, {"split.json": json.dumps({kind: {side: paths[side][kind] for side in paths} for kind in KINDS})})
    else:
        rows = {side: [[path, k, kind] for k, kind in enumerate(KINDS) for path in paths[side][kind]] for side in paths}
        write_texts(root, {"split_zhou_Food.json": json.dumps(rows)})
    train, held = shared(root)
    assert train == [path for kind in KINDS for path in each(f"images/{kind}", 3)]
    assert held == [f"images/{kind}/3.jpg" for kind in KINDS]
    assert labels(opened(root)) == {path: path.split("/")[1] for path in train} and len(labels(opened(root, "val"))) == 2


@pytest.mark.parametrize("key", ["data", "images", "samples"])
def test_rows_of_json_may_lie_in_an_object_whose_key_is_no_class(tmp_path, key):
    rows = [{"file_name": f"images/{kind}/{i}.jpg", "split": "train" if i < 3 else "test"} for kind in KINDS for i in range(4)]
    write_texts(food(tmp_path), {"dataset.json": json.dumps({key: rows})})
    assert opened(tmp_path).classes == [*KINDS] and (len(opened(tmp_path)), len(opened(tmp_path, "val"))) == (6, 2)


def test_json_that_is_no_table_is_no_list_of_lines_either(tmp_path):
    write_texts(food(tmp_path), {"train.json": json.dumps({"pictures": ["apple_pie/0", "apple_pie/1"], "count": 2})})
    assert len(opened(tmp_path)) + len(opened(tmp_path, "val")) == 8 and "train.json is not used" in said(opened(tmp_path))


def test_tables_that_are_called_as_splits_and_not_used_are_named_apart(tmp_path):
    write_pictures(tmp_path, *each("images", 6, pre="a"))
    index = "indexes\n0\n1\n"
    write_texts(tmp_path, {f"meta/{name}.csv": index for name in ("a", "b", "c", "d", "train_indexes", "test_indexes")})
    found = said(opened(tmp_path))
    assert "4 tables are not used, the first meta/a.csv" in found
    assert "meta/test_indexes.csv is not used" in found and "meta/train_indexes.csv is not used" in found


def test_captions_of_coco_are_read_beside_panoptic_maps(tmp_path):
    for split, start in (("train2017", 0), ("val2017", 10)):
        write_pictures(tmp_path, *each(split, 4, start=start), *each(f"annotations/panoptic_{split}", 4, start=start, ending=".png"))
        images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(start, start + 4)]
        texts = [{"image_id": i, "id": i, "caption": f"c{i}"} for i in range(start, start + 4)]
        write_texts(tmp_path, {f"annotations/captions_{split}.json": json.dumps({"images": images, "annotations": texts})})
    train = opened(tmp_path)
    assert captions(train) == {f"train2017/{i}.jpg": f"c{i}" for i in range(4)} and len(train.maps) == 4
    assert names(opened(tmp_path, "val")) == each("val2017", 4, start=10)


# -- tables and lists ------------------------------------------------------------


@pytest.mark.parametrize("start", ["/home/author/data/images/", "C:\\Users\\bob\\images\\", "https://example.org/images/", "/x/"])
def test_paths_of_another_machine_name_the_pictures_that_they_end_as(tmp_path, start):
    write_pictures(tmp_path, *each("images", 10))
    rows = "".join(f"{start}{i}.jpg,{i % 2},{'train' if i < 7 else 'test'}\n" for i in range(10))
    write_texts(tmp_path, {"labels.csv": f"path,label,split\n{rows}"})
    assert shared(tmp_path) == (each("images", 7), each("images", 3, start=7)) and len(labels(opened(tmp_path))) == 7


def test_no_file_is_read_that_a_path_of_another_machine_names(tmp_path):
    elsewhere = write_pictures(tmp_path / "elsewhere", *each("masks", 4))
    root = write_pictures(tmp_path / "set", *each("images", 4))
    rows = "".join(f"{elsewhere}/masks/{i}.jpg,{elsewhere}/masks/{i}.jpg,{i % 2}\n" for i in range(4))
    dataset = opened(write_texts(root, {"labels.csv": f"path,mask,label\n{rows}"}), val_share=0)
    assert names(dataset) == each("images", 4) and not dataset.maps


def test_a_row_that_fits_pictures_of_both_splits_is_that_of_the_split_of_its_table(tmp_path):
    write_pictures(tmp_path, *each("train", 6, start=1, ending=".png"), *each("test", 3, start=1, ending=".png"))
    rows = "".join(f"{i},{'frog' if i % 2 else 'cat'}\n" for i in range(1, 7))
    write_texts(tmp_path, {"trainLabels.csv": f"id,label\n{rows}", "sampleSubmission.csv": "id,label\n1,cat\n2,cat\n3,cat\n"})
    train = opened(tmp_path)
    assert labels(train) == {f"train/{i}.png": "frog" if i % 2 else "cat" for i in range(1, 7)}
    assert len(opened(tmp_path, "val")) == 3 and not labels(opened(tmp_path, "val")) and "fit several" not in said(train)


def test_the_word_of_a_line_that_one_picture_alone_may_be_is_its_name(tmp_path):
    pictures = [f"{kind}_final/{i}_{j}.JPG" for kind in ("bicycle", "chair") for i in range(3) for j in range(2)]
    write_pictures(tmp_path, *pictures)
    sides = {"train": [path for path in pictures if "/2_" not in path], "test": [path for path in pictures if "/2_" in path]}
    head = "image_id class_id super_class_id path\n"
    write_texts(
        tmp_path, {f"Ebay_{side}.txt": head + "".join(f"{k} 7 1 {path}\n" for k, path in enumerate(paths)) for side, paths in sides.items()}
    )
    assert shared(tmp_path) == (sides["train"], sides["test"]) and not opened(tmp_path).warnings


def test_a_column_of_any_name_whose_values_end_as_pictures_names_them(tmp_path):
    write_pictures(
        tmp_path, *(f"{split}/{i}_sat.jpg" for split, i in (("train", 1), ("train", 2), ("train", 3), ("valid", 4), ("valid", 5)))
    )
    write_pictures(tmp_path, *(f"train/{i}_mask.png" for i in (1, 2, 3)))
    rows = [f"{i},train,train/{i}_sat.jpg,train/{i}_mask.png" for i in (1, 2, 3)] + [f"{i},valid,valid/{i}_sat.jpg," for i in (4, 5)]
    write_texts(tmp_path, {"metadata.csv": "\n".join(["image_id,split,sat_image_path,mask_path", *rows])})
    train = opened(tmp_path)
    assert (len(train), len(opened(tmp_path, "val"))) == (3, 2) and len(train.maps) == 3 and not train.classes
    assert "Columns of metadata.csv that are not used: image_id." in said(train)


@pytest.mark.parametrize("lines", [1, 3])
def test_a_list_without_a_header_loses_no_line_to_one(tmp_path, lines):
    write_pictures(tmp_path, *each("images/Cubism", 8))
    texts = {"wiki_train.csv": range(8 - lines), "wiki_val.csv": range(8 - lines, 8)}
    write_texts(tmp_path, {name: "".join(f"Cubism/{i}.jpg,0\n" for i in which) for name, which in texts.items()})
    assert shared(tmp_path) == (each("images/Cubism", 8 - lines), each("images/Cubism", lines, start=8 - lines))


# -- folders that are no classes -----------------------------------------------


@pytest.mark.parametrize(
    "pictures",
    [
        ["HAM_images_part_1/a{}.jpg", "HAM_images_part_2/b{}.jpg"],
        ["images_001/images/a{}.png", "images_002/images/b{}.png"],
        ["00000/0000{}.png", "01000/0100{}.png", "02000/0200{}.png"],  # FFHQ
        ["00000/00000000{}.jpg", "00001/00001000{}.jpg"],  # img2dataset
        ["00000/img0000000{}.png", "00001/img0000100{}.png"],  # StyleGAN
        ["512px/0000/{}000.jpg", "512px/0001/{}001.jpg"],  # Danbooru
        ["DCIM/100CANON/IMG_{}.JPG", "DCIM/101CANON/IMG_{}.JPG"],
        ["Photos from 2019/IMG_{}.jpg", "Photos from 2020/IMG_{}.jpg"],
        ["2019/05/a{}.jpg", "2019/06/b{}.jpg", "2020/05/c{}.jpg"],
        ["2019-05-01/a{}.jpg", "2020-06-02/b{}.jpg"],
        ["patient00001/study1/a{}.jpg", "patient00002/study1/b{}.jpg"],
    ],
)
def test_folders_that_number_the_parts_of_a_set_are_no_classes(tmp_path, pictures):
    write_pictures(tmp_path, *(path.format(i) for path in pictures for i in range(1, 5)))
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 4 * len(pictures) and not dataset.classes
    assert "number parts of the set: they are no classes. If they are classes, a column `label` says so." in said(dataset)


@pytest.mark.parametrize(
    "folders",
    [
        ("0", "1", "10"),
        ("001", "002"),
        ("0000045", "0000099"),
        ("00001", "00002"),
        ("class1", "class2"),
        ("n01440764", "n01443537"),
        ("001.Albatross", "002.Gull"),
        ("1990s", "2000s"),
        ("10_sks dog", "1_dog"),
    ],
)
def test_numbers_of_classes_are_classes(tmp_path, folders):
    write_pictures(tmp_path, *(path for name in folders for path in each(name, 4)))
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == sorted(folders, key=lambda name: int(name) if name.isdecimal() else 0) and len(labels(dataset)) == len(
        dataset
    )


def test_classes_within_numbered_parts_are_classes(tmp_path):
    write_pictures(tmp_path, *(path for k in (1, 2) for kind in KINDS for path in each(f"part_{k}/{kind}", 3, pre=f"{k}")))
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == [*KINDS] and "part_1 and part_2 number parts of the set" in said(dataset)


def test_folders_of_one_picture_each_are_no_classes(tmp_path):
    write_pictures(tmp_path, *(f"person_{chr(97 + k)}/face.jpg" for k in range(9)))
    dataset = opened(tmp_path, val_share=0)
    assert not dataset.classes and "Each of 9 folders has one picture: they are no classes." in said(dataset)
    write_pictures(tmp_path, "person_a/again.jpg")
    assert len(opened(tmp_path, val_share=0).classes) == 9


@pytest.mark.parametrize("top", ["animals", "data_256/a", "my own pictures"])
def test_classes_beside_a_held_out_folder_may_lie_in_a_folder_of_any_name(tmp_path, top):
    write_pictures(tmp_path, *(path for kind in KINDS for path in (*each(f"{top}/{kind}", 3), *each(f"test/{kind}", 2, start=5))))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert train.classes == held.classes == [*KINDS] and len(labels(train)) == 6 and len(labels(held)) == 4


def test_classes_are_those_of_the_pictures_in_use_where_a_list_leaves_others_out(tmp_path):
    paths = [f"{kind}/{i}.jpg" for kind in KINDS for i in range(4)]
    write_pictures(tmp_path, *(f"CUB/images/{path}" for path in paths), *(f"parts/{path.replace('/', '/p')}" for path in paths))
    write_texts(tmp_path, {"CUB/images.txt": "".join(f"{k} {path}\n" for k, path in enumerate(paths, start=1))})
    write_texts(tmp_path, {"CUB/train_test_split.txt": "".join(f"{k} {int(k % 4 > 0)}\n" for k in range(1, 9))})
    train = opened(tmp_path)
    assert train.classes == [*KINDS] and len(labels(train)) == len(train) == 6 and len(opened(tmp_path, "val")) == 2
