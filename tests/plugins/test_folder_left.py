"""What programs, systems and downloads leave in folders of pictures: nothing of it is trained on, and nothing is lost without a word."""

import json

import pytest
from folders import each, names, opened, said, write_pictures, write_texts
from PIL import Image

from ldmctl.errors import DataError

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


def test_pointers_of_git_lfs_are_no_pictures_and_no_copies_of_each_other(tmp_path):
    write_pictures(tmp_path, *each("photos", 4))
    write_texts(tmp_path, {f"photos/l{i}.jpg": POINTER for i in range(4)})
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == each("photos", 4)
    assert dataset.warnings == [
        "4 picture files are pointers of Git LFS and no picture, the first photos/l0.jpg: `git lfs pull` fetches them."
    ]


def test_pointers_alone_are_refused_with_the_way_on(tmp_path):
    write_texts(tmp_path, {f"l{i}.jpg": POINTER for i in range(2)})
    with pytest.raises(DataError, match=r"2 picture files are pointers of Git LFS .* `git lfs pull` fetches them"):
        opened(tmp_path)


@pytest.mark.parametrize("ending", [".part", ".tmp", ".crdownload", ".download", ".aria2", "~"])
def test_pictures_that_were_not_downloaded_to_the_end_are_counted(tmp_path, ending):
    write_pictures(tmp_path, *each("photos", 4))
    write_texts(tmp_path, {f"photos/a.jpg{ending}": "x", "photos/notes.tmp": "x"})
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 4 and "1 file is not read because of its ending: 1 ." in said(dataset)


def test_folders_that_hold_nothing_are_named(tmp_path):
    write_pictures(tmp_path, *each("cat", 3), *each("dog", 3))
    for name in ("bird", "fish/deep"):
        (tmp_path / name).mkdir(parents=True)
    assert "2 folders hold nothing: bird/ and fish/deep/." in said(opened(tmp_path)) and opened(tmp_path).classes == ["cat", "dog"]


def test_albums_of_google_photos_stop_nothing_and_are_no_classes(tmp_path):
    for year in (2019, 2020):
        folder = f"Takeout/Google Photos/Photos from {year}"
        write_pictures(tmp_path, *each(folder, 3, pre=f"IMG_{year}"))
        album = {"title": f"Photos from {year}", "description": "", "access": "protected", "date": {"timestamp": "0"}}
        write_texts(tmp_path, {f"{folder}/metadata.json": json.dumps(album), f"{folder}/IMG_{year}0.jpg.json": json.dumps({"title": "a"})})
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 6 and not dataset.classes
    assert "Takeout/Google Photos/Photos from 2019/metadata.json is not used" in said(dataset)
    assert "Files beside pictures that are not read: 2 .json." in said(dataset)


def test_a_table_called_metadata_that_names_pictures_in_another_form_still_stops(tmp_path):
    write_pictures(tmp_path, *each("images", 3))
    write_texts(tmp_path, {"metadata.json": json.dumps({"pictures": [{"path": "images/0.jpg"}], "version": 1})})
    with pytest.raises(DataError, match="a list of objects with `file_name` was expected"):
        opened(tmp_path)


@pytest.mark.parametrize("folder", ["Catalog Previews.lrdata/A", "photos/.ipynb_checkpoints", ".Trash-1000/files", "photos/.thumbnails"])
def test_previews_and_what_was_deleted_are_no_pictures(tmp_path, folder):
    write_pictures(tmp_path, *each("photos", 4), *each(folder, 3))
    write_texts(tmp_path, {"__MACOSX/photos/._0.jpg": "x", "photos/._0.jpg": "x"})
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == each("photos", 4) and "Hidden files and folders are left out: " in said(dataset)


def test_labels_in_files_beside_pictures_are_said_to_be_not_read(tmp_path):
    write_pictures(tmp_path, *each("a", 4))
    write_texts(tmp_path, {f"a/{i}.cls": str(i % 2) for i in range(4)})
    dataset = opened(tmp_path, val_share=0)
    assert "Files beside pictures that are not read: 4 .cls." in said(dataset) and not dataset.warnings


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv"])
def test_a_table_without_rows_is_named(tmp_path, name):
    write_pictures(tmp_path, *each("a", 4))
    write_texts(tmp_path, {name: "file_name,label\n"})
    assert f"{name} is not used: it has no rows." in said(opened(tmp_path))


@pytest.mark.parametrize(("train", "held"), [("entrenamiento", "prueba"), ("训练集", "测试集"), ("apprentissage", "essai")])
def test_words_for_splits_in_other_languages_are_classes_and_it_is_said(tmp_path, train, held):
    write_pictures(tmp_path, *each(f"{train}/a", 3), *each(f"{train}/b", 3), *each(f"{held}/a", 3, start=5), *each(f"{held}/b", 3, start=5))
    dataset = opened(tmp_path)
    assert "Splits: no folder is held out by its name, so 5% of the pictures are, by a hash of each path." in dataset.remarks
    assert f"Classes by folder: {' and '.join(sorted((train, held)))}." in dataset.remarks


def test_grids_of_several_pictures_are_left_out_and_said(tmp_path):
    write_pictures(tmp_path, *each("txt2img-images/2023-01-01", 4), *each("txt2img-grids/2023-01-01", 2, pre="grid-"))
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 4 and not dataset.classes
    assert "2 grids of several pictures are left out, the first txt2img-grids/2023-01-01/grid-0.jpg." in said(dataset)


@pytest.mark.parametrize("again", ["VG_100K_2", "VG_100K (1)", "VG_100K 2"])
def test_a_folder_and_its_second_part_are_no_classes(tmp_path, again):
    write_pictures(tmp_path, *each("VG_100K", 3), *each(again, 3, start=10))
    dataset = opened(tmp_path, val_share=0)
    assert not dataset.classes and f"VG_100K and {again} number parts of the set" in said(dataset)


def test_captions_by_paths_of_another_machine_without_endings_are_read(tmp_path):
    write_pictures(tmp_path, *each("pictures", 4))
    rows = {f"/home/author/pictures/{i}": {"caption": f"c{i}", "tags": "a, b"} for i in range(4)}
    write_texts(tmp_path, {"meta_cap.json": json.dumps(rows)})
    assert opened(tmp_path, val_share=0).counts["captions"] == 4


@pytest.mark.parametrize("folder", ["thumbs", "thumbnails128x128", "Thumbnail"])
def test_thumbnails_of_pictures_that_are_there_are_left_out_and_said(tmp_path, folder):
    write_pictures(tmp_path, *each("originals", 20), *each(folder, 20, ending=".png"))
    assert len(opened(tmp_path, val_share=0)) == 40 and opened(tmp_path).classes == sorted(["originals", folder])
    for i in range(20):
        Image.new("RGB", (2, 2), (9 * i, 0, 0)).save(tmp_path / folder / f"{i}.png")
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert sorted([*names(train), *names(held)]) == sorted(each("originals", 20)) and not train.classes
    assert f"20 thumbnails are left out, the first {folder}/0.png: the pictures are there, too." in said(train)
    write_pictures(tmp_path, f"{folder}/of another.png")
    assert len(opened(tmp_path, val_share=0)) == 41


def test_a_folder_that_holds_itself_again_is_no_class(tmp_path):
    write_pictures(tmp_path, *(path for top in ("cells", "cells/cells") for kind in ("a", "b") for path in each(f"{top}/{kind}", 3)))
    assert opened(tmp_path, val_share=0).classes == ["a", "b"]


def test_classes_beside_their_numbered_folders_are_classes(tmp_path):
    kinds = ("airport", "zoo")
    write_pictures(tmp_path, *(path for kind in kinds for k in range(3) for path in each(f"{kind}/{kind}_{k}", 2)))
    assert opened(tmp_path, val_share=0).classes == [*kinds]
