"""Data sets as they are published and unpacked: who is held out, of which class each picture is, and what is said of the rest."""

import json

import pytest
from folders import each, labels, names, opened, said, shared, write_pictures, write_texts

# -- contests ----------------------------------------------------------------


def test_a_sample_of_a_submission_gives_no_labels_and_stops_nothing(tmp_path):
    write_pictures(tmp_path, *each("train", 5, pre="cat."), *each("train", 5, pre="dog."), *each("test1", 4, start=1))
    write_texts(tmp_path, {"sampleSubmission.csv": "id,label\n1,0\n2,0\n3,0\n4,0\n"})
    assert shared(tmp_path) == (sorted([*each("train", 5, pre="cat."), *each("train", 5, pre="dog.")]), each("test1", 4, start=1))
    assert not labels(opened(tmp_path)) and not labels(opened(tmp_path, "val")) and not opened(tmp_path).warnings


@pytest.mark.parametrize("name", ["sample_submission.csv", "SampleSubmission.csv", "gender_submission.csv", "submission.csv"])
def test_the_pictures_of_a_sample_of_a_submission_are_held_out(tmp_path, name):
    write_pictures(tmp_path, *each("images", 10))
    table = "image_id,label\n" + "".join(f"{i}.jpg,{i % 2}\n" for i in range(6))
    write_texts(tmp_path, {"train.csv": table, name: "image_id,label\n" + "".join(f"{i}.jpg,0\n" for i in range(6, 10))})
    assert shared(tmp_path) == (each("images", 6), each("images", 4, start=6))
    assert len(labels(opened(tmp_path))) == 6 and not labels(opened(tmp_path, "val"))


def test_a_sample_of_a_submission_that_names_nothing_is_said_to_be_not_used(tmp_path):
    write_pictures(tmp_path, *each("images", 6))
    write_texts(tmp_path, {"submission.csv": "file_name,label\na.jpg,0\n"})
    assert "submission.csv is not used: it is a sample of a submission, and its labels are made up." in said(opened(tmp_path))


def test_columns_of_a_table_that_is_but_a_list_are_said_to_be_not_used(tmp_path):
    write_pictures(tmp_path, *each("train", 6, pre="a"), *each("test", 4, pre="b"))
    write_texts(tmp_path, {"train.csv": "id,breed\n" + "".join(f"a{i},pug\n" for i in range(6))})
    assert "Columns of train.csv that are not used: breed. Labels are read from `label`" in said(opened(tmp_path))


@pytest.mark.parametrize("name", ["train.txt", "train.csv", "train_labels.csv"])
def test_a_training_list_alone_trains_on_no_other_picture(tmp_path, name):
    write_pictures(tmp_path, *each("images", 10))
    head = "file_name,label\n" if name.endswith("csv") else ""
    write_texts(tmp_path, {name: head + "".join(f"{path},x\n" if head else f"{path}\n" for path in each("images", 6))})
    train, held = shared(tmp_path)
    assert sorted([*train, *held]) == each("images", 6) and len(held) == 1
    assert "4 pictures in none of the lists of the splits are left out, the first images/6.jpg." in said(opened(tmp_path))
    assert "dataset.tables=false" in said(opened(tmp_path)) and len(opened(tmp_path, tables=False)) == 9


def test_a_held_out_list_of_any_name_holds_out_its_pictures(tmp_path):
    write_pictures(tmp_path, *each("images", 10))
    write_texts(tmp_path, {"my_own_test.txt": "7\n8\n9\n"})
    assert shared(tmp_path) == (each("images", 7), each("images", 3, start=7))


# -- columns -----------------------------------------------------------------


@pytest.mark.parametrize("column", ["split", "subset", "set", "phase"])
@pytest.mark.parametrize("other", [["False"], ["query", "gallery"], ["0"], ["none of these"], ["public", "private"]])
def test_what_is_not_train_in_a_column_with_train_is_held_out(tmp_path, column, other):
    write_pictures(tmp_path, *each("images", 10))
    values = ["train"] * 6 + (other * 4)[:4]
    rows = "".join(f"images/{i}.jpg,{value}\n" for i, value in enumerate(values))
    write_texts(tmp_path, {"metadata.csv": f"file_name,{column}\n{rows}"})
    assert shared(tmp_path) == (each("images", 6), each("images", 4, start=6))
    assert f"Splits by the column `{column}`: {' and '.join(sorted(other))} held out" in said(opened(tmp_path))


@pytest.mark.parametrize("other", ["extra", ""])
@pytest.mark.parametrize("held", [True, False])
def test_pictures_that_a_column_of_splits_gives_to_none_are_left_out(tmp_path, other, held):
    write_pictures(tmp_path, *each("images", 10))
    values = ["train"] * 6 + (["val"] * 2 if held else ["train"] * 2) + [other] * 2
    rows = "".join(f"images/{i}.jpg,{value}\n" for i, value in enumerate(values))
    write_texts(tmp_path, {"metadata.csv": f"file_name,split\n{rows}"})
    train, val = shared(tmp_path)
    if held or not other:
        assert sorted([*train, *val]) == each("images", 8) and val
        sentence = "2 pictures of `extra` are left out, because that is no usual name" if other else "2 pictures in no split of the column"
        assert sentence in said(opened(tmp_path))
    else:
        assert (train, val) == (each("images", 8), each("images", 2, start=8))


def test_a_picture_without_a_row_is_not_trained_on_where_a_column_names_the_splits(tmp_path):
    write_pictures(tmp_path, *each("images", 10))
    rows = "".join(f"images/{i}.jpg,{'train' if i < 5 else 'val'}\n" for i in range(7))
    write_texts(tmp_path, {"metadata.csv": f"file_name,split\n{rows}"})
    assert shared(tmp_path) == (each("images", 5), each("images", 2, start=5))
    assert "3 pictures in no split of the column `split` are left out, the first images/7.jpg." in said(opened(tmp_path))


@pytest.mark.parametrize("column", ["fold", "kfold", "folds", "cv_fold"])
def test_a_column_of_folds_is_said(tmp_path, column):
    write_pictures(tmp_path, *each("images", 10))
    rows = "".join(f"{i}.jpg,a,{i % 5}\n" for i in range(10))
    write_texts(tmp_path, {"folds.csv": f"image_id,label,{column}\n{rows}"})
    assert f"The column `{column}` numbers folds of cross-validation, and none of them is held out" in said(opened(tmp_path))


# -- lists -------------------------------------------------------------------


@pytest.mark.parametrize("head", ["", "8\nimage_name evaluation_status\n", "image_name evaluation_status\n"])
@pytest.mark.parametrize("more", ["", " id_{:08}"])
def test_a_list_of_all_pictures_may_have_a_head_and_more_columns(tmp_path, head, more):
    pictures = [path for kind in ("Blouse", "Skirt") for path in each(f"img/{kind}", 4, pre="img_0000")]
    words = ["train", "train", "val", "test"] * 2
    lines = "".join(f"{path}{more.format(i)}   {word}\n" for i, (path, word) in enumerate(zip(pictures, words, strict=True)))
    head = head.replace("name ", "name item_id ") if more else head
    write_texts(write_pictures(tmp_path, *pictures), {"Eval/list_eval_partition.txt": head + lines})
    train, held = ([path for path, word in zip(pictures, words, strict=True) if word == split] for split in ("train", "val"))
    assert shared(tmp_path) == (train, held) and opened(tmp_path).classes == ["Blouse", "Skirt"]
    assert opened(tmp_path).warnings == ["2 pictures of `test` are left out, because val is held out already."]


def test_a_list_with_query_and_gallery_holds_both_out(tmp_path):
    pictures = each("img", 6)
    words = ["train", "query", "gallery"] * 2
    lines = "".join(f"{path} id_{i} {word}\n" for i, (path, word) in enumerate(zip(pictures, words, strict=True)))
    write_texts(write_pictures(tmp_path, *pictures), {"list_eval_partition.txt": f"6\nimage_name item_id evaluation_status\n{lines}"})
    assert shared(tmp_path) == (pictures[::3], [path for i, path in enumerate(pictures) if i % 3])


@pytest.mark.parametrize("pair", [("train_people.txt", "test_people.txt"), ("trainclasses.txt", "testclasses.txt")])
@pytest.mark.parametrize("more", ["", "\t2"])
def test_lists_of_folders_hold_out_what_is_in_them(tmp_path, pair, more):
    people = ["Ann", "George_Bush", "Zoe"]
    write_pictures(tmp_path, *(path for name in people for path in each(f"lfw/{name}", 3)))
    write_texts(tmp_path, {pair[0]: f"2\nAnn{more}\nZoe{more}\n", pair[1]: f"1\nGeorge_Bush{more}\n"})
    assert shared(tmp_path) == ([*each("lfw/Ann", 3), *each("lfw/Zoe", 3)], each("lfw/George_Bush", 3))
    assert opened(tmp_path).warnings == [
        "1 class occurs in held-out pictures alone, so that nothing is learnt of it: George_Bush.",
    ]


def test_of_numbered_lists_that_cross_the_first_fold_is_used(tmp_path):
    pictures = each("images", 9)
    write_pictures(tmp_path, *pictures)
    texts = {}
    for fold in (1, 2, 10):
        for place, split in enumerate(("train", "val", "test")):
            texts[f"labels/{split}{fold}.txt"] = "\n".join(path for i, path in enumerate(pictures) if (i + fold) % 3 == place)
    write_texts(tmp_path, texts)
    assert shared(tmp_path) == (pictures[2::3], pictures[0::3])
    assert "are folds of cross-validation, of which one trains on what another holds out: the first is used (labels/test1.txt" in said(
        opened(tmp_path)
    )


def test_years_of_lists_are_no_folds(tmp_path):
    pictures = each("images", 8)
    write_pictures(tmp_path, *pictures)
    parts = {"train2014": pictures[:3], "val2014": pictures[3:4], "train2017": pictures[4:6], "val2017": pictures[6:]}
    write_texts(tmp_path, {f"{name}.txt": "\n".join(paths) for name, paths in parts.items()})
    assert shared(tmp_path) == ([*pictures[:3], *pictures[4:6]], [pictures[3], *pictures[6:]])


def test_more_lists_than_are_read_are_counted_and_named(tmp_path):
    write_pictures(tmp_path, *each("images", 10))
    write_texts(tmp_path, {f"lists/test_{k:03}.txt": f"{k % 10}\n" for k in range(501)})
    assert "501 text files have the name of a split, and not one is read, the first lists/test_000.txt: up to 500 are read" in said(
        opened(tmp_path)
    )


def test_what_stands_beside_the_names_in_a_list_is_said_to_be_not_used(tmp_path):
    pictures = [*each("images", 4, pre="Abyssinian_"), *each("images", 4, pre="pug_")]
    write_pictures(tmp_path, *pictures)
    stems = [path.removeprefix("images/").removesuffix(".jpg") for path in pictures]
    write_texts(tmp_path, {"trainval.txt": "".join(f"{stem} 1 1 1\n" for stem in stems[:6]), "test.txt": "\n".join(stems[6:])})
    assert shared(tmp_path) == (pictures[:6], pictures[6:])
    assert "Of trainval.txt only the names of pictures are used, not what stands beside them (Abyssinian_0 1 1 1)" in said(opened(tmp_path))


def test_columns_that_are_not_used_are_said_once_for_all_tables(tmp_path):
    write_pictures(tmp_path, *(path for k in range(8) for path in each(f"p{k}", 2)))
    write_texts(tmp_path, {f"p{k}/metadata.csv": "file_name,label,width\n0.jpg,a,8\n1.jpg,b,8\n" for k in range(8)})
    found = [sentence for sentence in opened(tmp_path).remarks if sentence.startswith("Columns of")]
    assert len(found) == 1 and "p0/metadata.csv, p1/metadata.csv, p2/metadata.csv and 5 more that are not used: width." in found[0]


def test_coco_of_several_kinds_says_what_is_not_used(tmp_path):
    write_pictures(tmp_path, *each("train2017", 4, pre="00"), *each("val2017", 2, pre="01"))
    texts = {}
    for split, pre, count in (("train2017", "00", 4), ("val2017", "01", 2)):
        images = [{"id": i, "file_name": f"{pre}{i}.jpg"} for i in range(count)]
        captions = [{"image_id": i, "id": i, "caption": f"c{i}"} for i in range(count)]
        boxes = [{"image_id": i, "category_id": j} for i in range(count) for j in (1, 2)]
        names_of = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
        texts[f"annotations/captions_{split}.json"] = json.dumps({"images": images, "annotations": captions})
        texts[f"annotations/instances_{split}.json"] = json.dumps({"images": images, "annotations": boxes, "categories": names_of})
    write_texts(tmp_path, texts)
    dataset = opened(tmp_path)
    assert shared(tmp_path) == (each("train2017", 4, pre="00"), each("val2017", 2, pre="01")) and dataset.counts["captions"] == 4
    assert "that are not used: categories." in said(dataset) and not labels(dataset)


def test_celeba_of_kaggle_is_split_by_its_column_and_not_by_the_name_of_its_table(tmp_path):
    write_pictures(tmp_path, *each("img_align_celeba", 10), "img_align_celeba/more.jpg")
    rows = "".join(f"{i}.jpg,{0 if i < 6 else 1 if i < 8 else 2}\n" for i in range(10))
    attributes = "image_id,Smiling,Male\n" + "".join(f"{i}.jpg,1,-1\n" for i in range(10))
    write_texts(tmp_path, {"list_eval_partition.csv": f"image_id,partition\n{rows}", "list_attr_celeba.csv": attributes})
    assert shared(tmp_path) == (each("img_align_celeba", 6), each("img_align_celeba", 2, start=6))
    assert "list_attr_celeba.csv is not used: line 2: it has neither a column `label` nor one of `text`" in said(opened(tmp_path))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("captions.txt", "a{}.jpg,A dog runs ."),
        ("Flickr8k.token.txt", "a{}.jpg#0\tA dog runs ."),
        ("annotations/list.txt", "a{} 1 1 1"),
        ("list_attr.txt", "a{}.jpg  1 -1"),
    ],
)
def test_texts_that_name_pictures_and_are_not_read_are_named(tmp_path, name, line):
    write_pictures(tmp_path, *each("images", 6, pre="a"))
    write_texts(tmp_path, {name: "6\nimage,caption\n" + "".join(line.format(i) + "\n" for i in range(6)), "readme.txt": "a dog runs\n"})
    assert f"1 text file names pictures and is not read: {name}. Labels and captions are read from tables" in said(opened(tmp_path))
    assert "1 text file belongs to no picture, the first readme.txt." in said(opened(tmp_path))


def test_boxes_of_things_are_no_captions(tmp_path):
    write_pictures(tmp_path, *each("train", 6), *each("val", 2))
    boxes = "0 0.5 0.5 0.2 0.2\n12 0.1 0.25 0.3 0.4 1e-3\n"
    write_texts(tmp_path, {f"train/{i}.txt": boxes for i in range(5)} | {"train/5.txt": "5 dogs", "val/0.txt": ""})
    dataset = opened(tmp_path)
    assert dataset.counts["captions"] == 1 and dataset.captions(0) == () and dataset.note(5)[1] == "5 dogs"
    assert "5 text files beside pictures of train hold numbers, as YOLO writes boxes, and are no captions, the first train/0.txt." in said(
        dataset
    )


def test_archives_that_are_not_unpacked_are_named(tmp_path):
    write_pictures(tmp_path, *each("train", 4))
    write_texts(tmp_path, {"val.zip": "PK", "more/part2.tar.gz": "x", "labels.zip": "x"})
    assert "2 archives are not read: more/part2.tar.gz and val.zip. Unpack them if pictures are inside." in said(opened(tmp_path))


# -- names of files ----------------------------------------------------------


def test_one_picture_of_another_name_does_not_train_on_the_held_out_ones(tmp_path):
    write_pictures(tmp_path, *each("a", 5, pre="COCO_train_"), *each("a", 3, pre="COCO_test_"), "a/cover.jpg")
    assert shared(tmp_path) == (each("a", 5, pre="COCO_train_"), each("a", 3, pre="COCO_test_"))
    assert "1 picture in no split of the names of files is left out, the first a/cover.jpg." in said(opened(tmp_path))


def test_a_word_inside_of_every_name_splits_too(tmp_path):
    write_pictures(tmp_path, *(f"{kind}_{split}_{i}.png" for kind in ("cat", "dog") for split in ("train", "test") for i in range(3)))
    train, held = shared(tmp_path)
    assert len(train) == len(held) == 6 and all("_train_" in path for path in train) and all("_test_" in path for path in held)


def test_names_that_decide_nothing_though_many_have_words_of_splits_are_said(tmp_path):
    write_pictures(tmp_path, *each("a", 3, pre="train_"), *each("a", 3, pre="test_"), *each("a", 6, pre="x"))
    found = said(opened(tmp_path))
    assert "by a hash of each path" in found
    assert "6 pictures of 12 have the word of a split in their names, such as a/test_0.jpg, and others none, such as a/x0.jpg" in found


@pytest.mark.parametrize("name", ["split.yaml", "splits.npz", "folds.pkl", "my_partition.xml", "test_idx.npy", "val.pt", "test.npz"])
def test_files_that_may_hold_splits_in_a_form_that_is_not_read_are_named(tmp_path, name):
    write_pictures(tmp_path, *each("images", 5))
    write_texts(tmp_path, {name: "x"})
    assert f"is not read: {name}. Tables end in" in said(opened(tmp_path))


def test_a_table_of_splits_alone_is_not_said_to_have_labels(tmp_path):
    write_pictures(tmp_path, *each("images", 10))
    write_texts(tmp_path, {"splits.json": json.dumps({"train": list(range(6)), "test": list(range(6, 10))})})
    assert shared(tmp_path) == (each("images", 6), each("images", 4, start=6)) and "Splits from splits.json: 10 rows." in said(
        opened(tmp_path)
    )


# -- classes -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["fold_{}", "fold{}", "Fold {}", "cv{}", "kfold_{}", "k-fold-{}", "split_{}"])
@pytest.mark.parametrize("classes", [("",), ("/cat", "/dog")])
def test_folders_of_folds_are_no_classes(tmp_path, name, classes):
    write_pictures(tmp_path, *(path for k in range(3) for kind in classes for path in each(name.format(k) + kind, 3, pre=f"{k}")))
    dataset = opened(tmp_path)
    assert dataset.classes == [kind[1:] for kind in classes if kind] and len(dataset) + len(opened(tmp_path, "val")) == 9 * len(classes)
    assert (
        "number folds of cross-validation: they are no classes, and none of them is held out. To hold one out, rename it to val."
        in said(dataset)
    )


def test_a_fold_that_is_renamed_to_val_is_held_out(tmp_path):
    write_pictures(
        tmp_path, *(path for name in ("fold_0", "fold_1", "val") for kind in ("cat", "dog") for path in each(f"{name}/{kind}", 2))
    )
    dataset, held = opened(tmp_path), opened(tmp_path, "val")
    assert dataset.classes == ["cat", "dog"] and (len(dataset), len(held)) == (8, 4)
    assert "fold_0 and fold_1 number folds of cross-validation: they are no classes. If" in said(dataset)


def test_classes_within_the_splits_of_folds_are_classes(tmp_path):
    folders = [f"fold_{k}/{split}/{kind}" for k in range(2) for split in ("train", "val") for kind in ("cat", "dog")]
    write_pictures(tmp_path, *(path for folder in folders for path in each(folder, 2)))
    assert opened(tmp_path).classes == ["cat", "dog"]


def test_one_folder_called_as_a_fold_is_a_class(tmp_path):
    write_pictures(tmp_path, *each("fold_1", 3), *each("crease", 3))
    assert opened(tmp_path, val_share=0).classes == ["crease", "fold_1"]


@pytest.mark.parametrize("name", ["unlabelled", "unknown", "all"])
def test_held_out_pictures_of_unknown_class_are_no_class_of_their_own(tmp_path, name):
    write_pictures(tmp_path, *each("train/cat", 3), *each("train/dog", 3), *each(f"test/{name}", 2))
    held = opened(tmp_path, "val")
    assert held.classes == ["cat", "dog"] and len(held) == 2 and not labels(held)
    write_pictures(tmp_path, *each(f"train/{name}", 3))
    assert len(labels(opened(tmp_path, "val"))) == 2


# -- maps --------------------------------------------------------------------


def test_maps_of_voc_are_those_of_classes_and_no_pictures(tmp_path):
    write_pictures(tmp_path, *each("VOC2012/JPEGImages", 6, pre="2007_"))
    for kind in ("Class", "Object"):
        write_pictures(tmp_path, *each(f"VOC2012/Segmentation{kind}", 4, pre="2007_", ending=".png"))
    write_texts(
        tmp_path,
        {"VOC2012/ImageSets/Segmentation/train.txt": "2007_0\n2007_1\n", "VOC2012/ImageSets/Segmentation/val.txt": "2007_2\n2007_3\n"},
    )
    train = opened(tmp_path)
    assert shared(tmp_path) == (each("VOC2012/JPEGImages", 2, pre="2007_"), each("VOC2012/JPEGImages", 2, pre="2007_", start=2))
    assert train.maps == {f"VOC2012/JPEGImages/2007_{i}.jpg": tmp_path / f"VOC2012/SegmentationClass/2007_{i}.png" for i in range(2)}
    assert "VOC2012/SegmentationObject/ (4 maps) is left out" in said(train) and not train.classes


def test_masks_beside_their_pictures_are_maps_and_no_pictures(tmp_path):
    for kind in ("benign", "malignant"):
        write_pictures(tmp_path, *(f"{kind}/{kind} ({i}){end}.png" for i in range(4) for end in ("", "_mask")))
    write_pictures(tmp_path, "benign/benign (0)_mask_1.png", "benign/benign (9).png")
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert (len(train) + len(held), len(train.maps) + len(held.maps)) == (9, 8) and train.classes == ["benign", "malignant"]
    assert not [path for path in (*names(train), *names(held)) if "_mask" in path]
    assert "Maps from files beside the pictures that end in _mask or the like: 8 of 9 pictures have one." in said(train)
    assert "1 picture has several maps beside it, of which one is used: of benign/benign (0).png it is benign/benign (0)_mask.png." in said(
        train
    )
    assert len(opened(tmp_path, maps="none")) + len(opened(tmp_path, "val", maps="none")) == 18


def test_pictures_that_are_called_masks_and_belong_to_no_other_stay_pictures(tmp_path):
    write_pictures(tmp_path, *(f"faces/{i}.png" for i in range(8)), "faces/venetian_mask.png", "faces/0_mask.png")
    assert len(opened(tmp_path, val_share=0)) == 10


def test_cityscapes_is_read_as_it_is_unpacked(tmp_path):
    for split in ("train", "val", "test"):
        write_pictures(tmp_path, *each(f"leftImg8bit/{split}/ulm", 3, pre="ulm_00", ending="_leftImg8bit.png"))
        for end in ("color", "instanceIds", "labelIds"):
            write_pictures(tmp_path, *each(f"gtFine/{split}/ulm", 3, pre="ulm_00", ending=f"_gtFine_{end}.png"))
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert names(train) == each("leftImg8bit/train/ulm", 3, pre="ulm_00", ending="_leftImg8bit.png") and len(held) == 3
    assert train.maps[names(train)[0]] == tmp_path / "gtFine/train/ulm/ulm_000_gtFine_labelIds.png"
    assert "Maps from gtFine/: 6 of 6 pictures have one." in said(train) and "belong to no picture" not in said(train)


@pytest.mark.parametrize(("folder", "ending"), [("{}annot", ".png"), ("{}_labels", "_L.png"), ("{}masks", "_mask.png")])
def test_maps_of_camvid_are_found_under_each_name(tmp_path, folder, ending):
    for split in ("train", "val", "test"):
        write_pictures(tmp_path, *each(split, 3, pre=split), *each(folder.format(split), 3, pre=split, ending=ending))
    assert shared(tmp_path) == (each("train", 3, pre="train"), each("val", 3, pre="val"))
    assert len(opened(tmp_path).maps) == len(opened(tmp_path, "val").maps) == 3


def test_what_a_system_leaves_in_folders_is_no_class(tmp_path):
    thumbs = [f"cat/@eaDir/{i}.png/SYNOPHOTO_THUMB_XL.jpg" for i in range(4)]
    write_pictures(
        tmp_path, *each("cat", 4), *each("dog", 4), *thumbs, "$RECYCLE.BIN/a.png", "System Volume Information/b.png", "#recycle/c.png"
    )
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == ["cat", "dog"] and len(dataset) == 8
    assert "Hidden files and folders are left out: #recycle/, $RECYCLE.BIN/, System Volume Information/ and cat/@eaDir/." in said(dataset)
