"""Maps beside pictures: found by folder or table, given to their pictures, and never trained on as pictures themselves."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from folders import captions, labels, names, numbered, opened, said, write_pictures
from PIL import Image

from ldmctl.config.schemas.shared import Image as Section
from ldmctl.errors import DataError
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.maps import map_of
from ldmctl_plugins.datasets import _celeb as celeb


def write_maps(root: Path, *paths: str, value: int = 1) -> Path:
    """Label maps below a folder -> the folder."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(root / path, "PNG")
    return root


def mapped(dataset) -> dict[str, str]:
    """The map of each picture that has one, both by path."""
    return {picture: str(path.relative_to(dataset.root)) for picture, path in dataset.maps.items()}


LAYOUTS = [
    ("{}.png", "masks/{}.png"),
    ("{}.jpg", "masks/{}.png"),
    ("images/{}.jpg", "masks/{}.png"),
    ("images/{}.jpg", "masks/{}_mask.png"),
    ("images/{}.jpg", "labels/{}.png"),
    ("photos/{}.jpg", "maps/{}-map.png"),
    ("data/images/{}.jpg", "data/Segmentation Masks/{}.png"),
    ("images/{}.jpg", "annotations/{}.png"),
    ("imgs/{}.jpg", "IMGS_MASKS/{}.PNG"),
]
SPLIT = [
    ("{s}/{}.png", "{s}/masks/{}.png"),
    ("{s}/images/{}.jpg", "{s}/masks/{}.png"),
    ("{s}/{}.jpg", "masks/{s}/{}.png"),
    ("images/{s}/{}.jpg", "annotations/{s}/{}.png"),
    ("{s}/{}.jpg", "{s}_masks/{}_mask.png"),
    ("{s}/images/{}.jpg", "masks/{s}/{}.png"),
]


@pytest.mark.parametrize(("picture", "map"), LAYOUTS)
def test_folders_of_maps_are_found_and_are_no_pictures_and_no_class(tmp_path, picture, map):
    write_pictures(tmp_path, *(picture.format(i) for i in range(4)))
    write_maps(tmp_path, *(map.format(i) for i in range(4)))
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == sorted(picture.format(i) for i in range(4))
    assert mapped(dataset) == {picture.format(i): map.format(i) for i in range(4)}
    assert dataset.classes == [] and not dataset.warnings and dataset.has_maps and dataset.counts["maps"] == 4
    assert f"Maps from {map.rpartition('/')[0]}/: 4 of 4 pictures have one." in said(dataset)
    assert np.asarray(dataset[0].map).tolist() == [[1] * 8] * 8


@pytest.mark.parametrize(("picture", "map"), SPLIT)
def test_maps_follow_their_pictures_into_the_splits(tmp_path, picture, map):
    for split, count in (("train", 4), ("val", 2)):
        write_pictures(tmp_path, *(picture.format(i, s=split) for i in range(count)))
        write_maps(tmp_path, *(map.format(i, s=split) for i in range(count)))
    for split, count in (("train", 4), ("val", 2)):
        dataset = opened(tmp_path, split)
        assert mapped(dataset) == {picture.format(i, s=split): map.format(i, s=split) for i in range(count)}
        assert len(dataset) == count and dataset.classes == [] and not dataset.warnings
        assert "6 of 6 pictures have one" in said(dataset)


def test_pictures_in_classes_have_maps_in_the_same_classes(tmp_path):
    write_pictures(tmp_path, *numbered("cat", 3), *numbered("dog", 3))
    write_maps(tmp_path, *numbered("masks/cat", 3), *numbered("masks/dog", 2))
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == ["cat", "dog"] and set(labels(dataset).values()) == {"cat", "dog"} and len(dataset) == 6
    assert mapped(dataset)["cat/1.png"] == "masks/cat/1.png" and mapped(dataset)["dog/1.png"] == "masks/dog/1.png"
    assert "1 of 6 pictures has no map, the first dog/2.png." in dataset.warnings


def test_what_is_missing_is_counted_and_named(tmp_path):
    write_pictures(tmp_path, *numbered("images", 5))
    write_maps(tmp_path, *numbered("masks", 3), "masks/x.png", "masks/y.png")
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 5
    assert dataset.warnings == [
        "2 of 5 pictures have no map, the first images/3.png.",
        "2 maps belong to no picture, the first masks/x.png.",
    ]
    assert dataset[4].map is None and dataset[0].map is not None


@pytest.mark.parametrize("name", ["masks", "maps", "labels", "annotations"])
def test_a_class_that_is_called_as_maps_are_stays_a_class(tmp_path, name):
    write_pictures(tmp_path, *numbered("hats", 4), *numbered(name, 4))
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 8 and dataset.classes == sorted(["hats", name]) and not dataset.has_maps
    assert dataset[0].map is None and "maps" not in dataset.counts and not dataset.warnings
    assert f"If they are maps and no pictures: dataset.maps={name}." in said(dataset)


def test_a_folder_of_another_name_whose_pictures_look_like_maps_of_others_is_doubted_aloud(tmp_path):
    write_pictures(tmp_path, *numbered("images", 4), *numbered("others", 4))
    write_maps(tmp_path, *numbered("edges", 4))
    (warning,) = opened(tmp_path, val_share=0).warnings
    assert warning.startswith(
        "edges/ holds pictures with the names of those in images/, but in grey or with a palette: if they are maps, give dataset.maps=edges."
    )
    assert names(opened(tmp_path, val_share=0, maps="edges")) == [*numbered("images", 4), *numbered("others", 4)]


def test_pictures_that_all_lie_in_a_folder_called_maps_are_pictures(tmp_path):
    write_pictures(tmp_path, *numbered("maps/train", 3), *numbered("maps/val", 2))
    assert (len(opened(tmp_path)), len(opened(tmp_path, "val"))) == (3, 2)
    assert "called as a folder of maps" not in said(opened(tmp_path))


def test_val_masks_are_maps_where_train_masks_are_even_if_none_fits(tmp_path):
    write_pictures(tmp_path, *numbered("train", 4), *numbered("val", 2))
    write_maps(tmp_path, *numbered("train/masks", 4), "val/masks/x.png", "val/masks/y.png")
    assert names(opened(tmp_path, "val")) == numbered("val", 2)
    assert "2 maps belong to no picture, the first val/masks/x.png." in opened(tmp_path, "val").warnings


def test_of_two_kinds_of_maps_one_is_taken_and_neither_is_trained_on(tmp_path):
    write_pictures(tmp_path, *numbered("images", 3))
    write_maps(tmp_path, *numbered("masks", 3), *numbered("trimaps", 3))
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == numbered("images", 3) and mapped(dataset)["images/0.png"] == "masks/0.png"
    assert dataset.warnings == ["trimaps/ (3 maps) is left out, because masks/ holds maps too: dataset.maps=trimaps takes it instead."]
    other = opened(tmp_path, val_share=0, maps="trimaps")
    assert names(other) == numbered("images", 3) and mapped(other)["images/0.png"] == "trimaps/0.png"
    assert "masks/ holds maps by its name and is left out, because dataset.maps is trimaps." in said(other)


def test_maps_none_reads_every_picture_as_one(tmp_path):
    write_pictures(tmp_path, *numbered("images", 3), *numbered("masks", 3))
    dataset = opened(tmp_path, val_share=0, maps="none")
    assert len(dataset) == 6 and dataset.classes == ["images", "masks"] and not dataset.has_maps


def test_a_folder_without_maps_is_read_as_it_is_with_maps_none(tmp_path):
    write_pictures(tmp_path, *numbered("train/cat", 3), *numbered("train/dog", 3), *numbered("val/cat", 2), *numbered("more", 2))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label,map\ncat/0.png,cat,dust2\n")
    for split in ("train", "val"):
        one, other = opened(tmp_path, split), opened(tmp_path, split, maps="none")
        assert (names(one), one.labels, one.remarks, one.warnings, one.counts) == (
            names(other),
            other.labels,
            other.remarks,
            other.warnings,
            other.counts,
        )


@pytest.mark.parametrize("seed", range(12))
def test_maps_change_neither_the_pictures_nor_their_split_nor_their_classes(tmp_path, seed):
    draw = random.Random(seed)
    splits, kinds = draw.choice([("train", "val"), ("training", "test"), ("",)]), draw.choice([("",), ("cat", "dog")])
    images, word, ending = draw.choice(["", "images"]), draw.choice(["masks", "labels", "Segmentation"]), draw.choice(["", "_mask"])
    inside = draw.random() < 0.5
    every = [(split, kind, f"{kind}{i}") for split in splits for kind in kinds for i in range(draw.randint(3, 6))]
    joined = lambda *parts: "/".join(part for part in parts if part)
    write_pictures(tmp_path, *(joined(split, images, kind, f"{name}.jpg") for split, kind, name in every))
    before = {split: (names(each := opened(tmp_path, split)), each.labels, each.classes) for split in ("train", "val")}
    places = [joined(*((split, word) if inside else (word, split)), kind, f"{name}{ending}.png") for split, kind, name in every]
    write_maps(tmp_path, *places)
    after = {split: opened(tmp_path, split) for split in ("train", "val")}
    assert before == {split: (names(each), each.labels, each.classes) for split, each in after.items()}
    assert sum(len(each.maps) for each in after.values()) == len(places) and not after["train"].warnings


# -- by the key ------------------------------------------------------------------


def test_a_folder_of_any_name_is_taken_when_it_is_named(tmp_path):
    write_pictures(tmp_path, *numbered("train", 3), *numbered("val", 2))
    write_maps(tmp_path, *numbered("train/depth", 3), *numbered("val/depth", 2))
    dataset = opened(tmp_path, maps="depth")
    assert mapped(dataset) == {f"train/{i}.png": f"train/depth/{i}.png" for i in range(3)}
    assert len(opened(tmp_path, "val", maps="depth")) == 2


def test_flat_maps_of_pictures_in_classes_are_found_by_their_names_when_the_folder_is_named(tmp_path):
    write_pictures(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png")
    write_maps(tmp_path, "masks/a.png", "masks/b.png", "masks/c.png")
    dataset = opened(tmp_path, val_share=0, maps="masks")
    assert mapped(dataset) == {"cat/a.png": "masks/a.png", "cat/b.png": "masks/b.png", "dog/c.png": "masks/c.png"}
    assert dataset.classes == ["cat", "dog"]


def test_maps_may_lie_in_a_folder_elsewhere(tmp_path):
    write_pictures(tmp_path / "photos", *numbered("train", 2), *numbered("val", 1))
    write_maps(tmp_path / "elsewhere", *numbered("train", 2), *numbered("val", 1), value=3)
    dataset = opened(tmp_path / "photos", maps=str(tmp_path / "elsewhere"))
    assert dataset.maps["train/1.png"] == tmp_path / "elsewhere" / "train" / "1.png" and dataset[1].map.getpixel((0, 0)) == 3


def test_a_folder_inside_is_left_out_of_the_pictures_however_it_is_written(tmp_path, monkeypatch):
    write_pictures(tmp_path, *numbered("images", 3))
    write_maps(tmp_path, *numbered("depth", 3))
    monkeypatch.chdir(tmp_path.parent)
    for asked in ("depth", "depth/", str(tmp_path / "depth"), f"{tmp_path.name}/depth"):
        dataset = opened(tmp_path, val_share=0, maps=asked)
        assert names(dataset) == numbered("images", 3) and mapped(dataset)["images/2.png"] == "depth/2.png"


def test_a_folder_of_maps_that_is_not_there_or_fits_nothing_is_a_sentence(tmp_path):
    write_pictures(tmp_path, *numbered("images", 2))
    with pytest.raises(DataError, match=r"There is no folder mask in .* to take maps from"):
        opened(tmp_path, maps="mask")
    write_maps(tmp_path, "other/x.png")
    with pytest.raises(
        DataError, match=r"Of the 1 map in other none has the name of a picture: its first is other/x\.png, the first picture"
    ):
        opened(tmp_path, maps="other")


# -- by a table --------------------------------------------------------------------


@pytest.mark.parametrize("column", ["map", "mask", "mask_file_name"])
def test_a_column_of_a_table_names_maps_wherever_they_lie(tmp_path, column):
    write_pictures(tmp_path, "a.png", "b.png", "c.png")
    write_maps(tmp_path, "drawn/one.png", "drawn/two.png", "drawn/spare.png")
    (tmp_path / "metadata.csv").write_text(f"file_name,{column}\na.png,drawn/one.png\nb.png,drawn/two.png\n")
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == ["a.png", "b.png", "c.png"] and mapped(dataset) == {"a.png": "drawn/one.png", "b.png": "drawn/two.png"}
    assert "1 of 3 pictures has no map, the first c.png." in dataset.warnings and "not used" not in said(dataset)


def test_maps_that_a_table_names_may_lie_beside_their_pictures(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    write_maps(tmp_path, "a_seg.png", "b_seg.png")
    (tmp_path / "metadata.csv").write_text("file_name,map\na.png,a_seg.png\nb.png,b_seg.png\n")
    dataset = opened(tmp_path, val_share=0)
    assert mapped(dataset) == {"a.png": "a_seg.png", "b.png": "b_seg.png"} and len(dataset) == 2 and not dataset.warnings


def test_what_lies_among_the_maps_that_a_table_names_is_no_picture_either(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    write_maps(tmp_path, "drawn/one.png", "drawn/two.png", "drawn/spare.png")
    (tmp_path / "metadata.csv").write_text("file_name,map\na.png,drawn/one.png\nb.png,drawn/two.png\n")
    assert names(opened(tmp_path, val_share=0)) == ["a.png", "b.png"]


def test_a_map_that_a_table_names_and_that_is_not_there_is_said(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    write_maps(tmp_path, "drawn/one.png")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "mask": "drawn/one.png"}\n{"file_name": "b.png", "mask": "drawn/no.png"}\n'
    )
    dataset = opened(tmp_path, val_share=0)
    assert "1 map that a table names is not there, the first drawn/no.png." in dataset.warnings
    assert mapped(dataset) == {"a.png": "drawn/one.png"}


def test_a_column_map_of_another_meaning_is_none(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text("file_name,text,map\na.png,hello,dust2\nb.png,world,nowhere.png\n")
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 2 and not dataset.has_maps and captions(dataset) == {"a.png": "hello", "b.png": "world"}
    assert "Columns of metadata.csv that are not used: map." in said(dataset)


# -- what they hold ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "words"),
    [("classes.txt", "ground\nsky\ntree\n"), ("labels.txt", "0 ground\n1: sky\n2 tree\n"), ("Classes.txt", "2,tree\n0,ground\n1,sky")],
)
def test_names_of_classes_are_read_from_a_list_among_the_maps(tmp_path, file, words):
    write_pictures(tmp_path, *numbered("images", 2))
    write_maps(tmp_path, *numbered("masks", 2))
    (tmp_path / "masks" / file).write_text(words)
    dataset = opened(tmp_path, val_share=0)
    assert dataset.map_classes == ["ground", "sky", "tree"] and "with 3 classes" in said(dataset) and "text file" not in said(dataset)


@pytest.mark.parametrize(
    ("number", "words"),
    [("4294967295", "4294967295"), ("9" * 5000, r"9999999999\.\.\. \(5,000 digits\)"), ("0" * 5000, r"0000000000\.\.\.")],
)
def test_a_number_of_a_class_that_no_map_can_have_is_refused_before_memory_is_taken(tmp_path, number, words):
    write_pictures(tmp_path, *numbered("images", 2))
    write_maps(tmp_path, *numbered("masks", 2))
    (tmp_path / "masks" / "classes.txt").write_text(f"0 ground\n{number} void\n")
    with pytest.raises(DataError, match=rf"classes\.txt gives a class the number {words}.*; a label map has those from 0 to 254\."):
        opened(tmp_path)
    (tmp_path / "masks" / "classes.txt").write_text("0 ground\n007 void\n")
    assert opened(tmp_path).map_classes[7] == "void"


def test_the_host_gets_maps_of_the_size_of_its_pictures_and_a_broken_one_costs_no_picture(tmp_path):
    write_pictures(tmp_path, *numbered("images", 3))
    write_maps(tmp_path, *numbered("masks", 2))
    (tmp_path / "masks" / "2.png").write_bytes(b"no picture")
    dataset = pickle.loads(pickle.dumps(opened(tmp_path, val_share=0)))
    pictures = Pictures(dataset, Section(size=4))
    assert map_of(pictures, 0, labels=True).unique().tolist() == [1] and map_of(pictures, 0).shape == (1, 4, 4)
    assert pictures.item(2).shape == (3, 4, 4) and not pictures.bad
    with pytest.raises(DataError, match=r"masks/2\.png cannot be read as a picture"):
        map_of(pictures, 2)


def test_the_stamp_of_a_map_changes_with_the_map_and_that_of_its_picture_does_not(tmp_path):
    write_pictures(tmp_path, *numbered("images", 2))
    write_maps(tmp_path, "masks/0.png")
    dataset = opened(tmp_path, val_share=0)
    before = dataset.stamp(0), dataset.map_stamp(0)
    Image.new("L", (30, 30), 7).save(tmp_path / "masks" / "0.png")
    again = opened(tmp_path, val_share=0)
    assert again.stamp(0) == before[0] and again.map_stamp(0) != before[1] and again.map_stamp(1) == ""


# -- CelebAMask-HQ -------------------------------------------------------------------


@pytest.fixture
def faces(tmp_path):
    """Three faces as the archive has them, of which the last has no masks."""
    root = tmp_path / "CelebAMask-HQ"
    write_pictures(root, *(f"CelebA-HQ-img/{i}.jpg" for i in (0, 1, 2001)))
    masks = root / "CelebAMask-HQ-mask-anno"
    for path, box in (
        ("0/00000_skin", (0, 0, 8, 8)),
        ("0/00000_hair", (0, 0, 8, 3)),
        ("0/00000_neck", (0, 2, 4, 8)),
        ("1/02001_l_eye", (1, 1, 3, 3)),
    ):
        (masks / path).parent.mkdir(parents=True, exist_ok=True)
        mask = Image.new("RGB", (8, 8))
        mask.paste("white", box)
        mask.save(masks / f"{path}.png")
    rows = ["3", "5_o_Clock_Shadow Bald Smiling", "0.jpg  -1 1 1", "1.jpg 1 -1 -1", "2001.jpg -1 -1 -1"]
    (root / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("top", ["", "CelebA-HQ-img"])
def test_masks_of_parts_become_one_map_in_the_order_of_their_authors(faces, top):
    dataset = opened(faces / top, val_share=0)
    prefix = "" if top else "CelebA-HQ-img/"
    assert names(dataset) == [f"{prefix}{i}.jpg" for i in ("0", "1", "2001")] and dataset.classes == []
    assert len(dataset.map_classes) == 19 and dataset.map_classes[:2] == ["background", "skin"] and dataset.map_classes[13] == "hair"
    want = np.full((8, 8), 1)
    want[0:3] = 13
    want[2:8, 0:4] = 17  # the neck is painted after the hair
    assert np.array_equal(np.asarray(dataset[0].map), want) and dataset[1].map is None
    eye = map_of(Pictures(dataset, Section(size=8)), 2)
    assert eye.unique().tolist() == [0, 4] and int((eye == 4).sum()) == 4
    assert captions(dataset) == {f"{prefix}0.jpg": "Bald, Smiling", f"{prefix}1.jpg": "5 o Clock Shadow"}
    assert "1 of 3 pictures has no map" in said(dataset) and "text file" not in said(dataset)
    assert celeb.CLASSES[18] == "cloth"


def test_masks_of_parts_are_never_pictures_even_without_their_faces(faces):
    assert not [name for name in names(opened(faces, val_share=0)) if "mask-anno" in name]
    assert opened(faces / "CelebA-HQ-img", val_share=0, maps="none").maps == {}


def test_an_attribute_file_that_does_not_fit_its_header_is_an_error_with_its_line(faces):
    file = faces / "CelebAMask-HQ-attribute-anno.txt"
    file.write_text(file.read_text() + "4.jpg 1 1\n")
    with pytest.raises(DataError, match="line 6: a file name and 3 times 1 or -1 were expected"):
        opened(faces)
