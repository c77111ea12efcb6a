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
