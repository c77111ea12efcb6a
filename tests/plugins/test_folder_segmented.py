"""Sets for segmentation as they are published and unpacked: manual segmentations, truths and masks are maps, and no pictures and no classes."""

import pytest
from folders import each, labels, names, numbered, opened, said, write_pictures


def drive(root, *, second=True):
    """DRIVE: a mask of the field of view and manual segmentations beside the pictures, whose names have the word of a split."""
    for split, start in (("training", 21), ("test", 11)):
        write_pictures(root, *each(f"{split}/images", 5, start=start, ending=f"_{split}.tif"))
        write_pictures(root, *each(f"{split}/mask", 5, start=start, ending=f"_{split}_mask.gif"))
        if split == "training" or second:
            write_pictures(root, *each(f"{split}/1st_manual", 5, start=start, ending="_manual1.gif"))
    if second:
        write_pictures(root, *each("test/2nd_manual", 5, start=11, ending="_manual2.gif"))
    return root


@pytest.mark.parametrize("second", [True, False])
def test_manual_segmentations_are_maps_before_masks_of_the_field_of_view(tmp_path, second):
    train, held = opened(drive(tmp_path, second=second)), opened(tmp_path, "val")
    assert names(train) == each("training/images", 5, start=21, ending="_training.tif") and not train.classes
    assert names(held) == each("test/images", 5, start=11, ending="_test.tif")
    assert train.maps[names(train)[0]] == tmp_path / "training/1st_manual/21_manual1.gif"
    assert "training/mask/ (5 maps) is left out, because" in said(train)
    if second:
        assert held.maps[names(held)[0]] == tmp_path / "test/1st_manual/11_manual1.gif"
        assert "test/2nd_manual/ (5 maps) is left out, because test/1st_manual/ holds maps too: dataset.maps=test/2nd_manual" in said(held)
    else:
        assert "5 of 10 pictures have no map, the first test/images/11_test.tif." in said(train)


@pytest.mark.parametrize(
    ("picture", "map"),
    [
        ("stare-images/im{}.ppm", "labels-ah/im{}.ah.ppm"),
        ("images/{}_dr.jpg", "manual1/{}_dr.tif"),
        ("PNG/Original/{}.png", "PNG/Ground Truth/{}.png"),
        ("Original/{}.png", "GroundTruth/{}.png"),
        ("ISIC_Task1-2_Training_Input/ISIC_{}.jpg", "ISIC_Task1_Training_GroundTruth/ISIC_{}_segmentation.png"),
        ("Set/CXR_png/M_{}_0.png", "Set/ManualMask/leftMask/M_{}_0.png"),
        ("train/images/austin{}.tif", "train/gt/austin{}.tif"),
        ("images/train2017/{:012}.jpg", "stuffthingmaps/train2017/{:012}.png"),
        ("train2017/{:012}.jpg", "annotations/panoptic_train2017/{:012}.png"),
        ("training/image_2/{:06}_10.png", "training/semantic/{:06}_10.png"),
        ("Rural/images_png/{}.png", "Rural/masks_png/{}.png"),
        ("2_Ortho_RGB/top_2_{}_RGB.tif", "5_Labels_all/top_2_{}_label.tif"),
        ("CUB_200/images/001.Gull/Gull_{}.jpg", "segmentations/001.Gull/Gull_{}.png"),
        ("1. Original Images/a. Training Set/ID_{}.jpg", "2. All Segmentation Groundtruths/a. Training Set/1. Haemorrhages/ID_{}_HE.tif"),
        ("PH2/IMD0{0}/IMD0{0}_Dermoscopic_Image/IMD0{0}.bmp", "PH2/IMD0{0}/IMD0{0}_lesion/IMD0{0}_lesion.bmp"),
        ("images/MEN-{}_full.jpg", "segm/MEN-{}_full_segm.png"),
        ("Image_{}L.jpg", "Image_{}L_1stHO.png"),
        ("train_{}.bmp", "train_{}_anno.bmp"),
        ("land/{}_sat.jpg", "land/{}_mask.png"),
        ("concept/{}.jpg", "concept/{}-masklabel.png"),
    ],
)
def test_maps_are_found_under_the_names_of_published_sets(tmp_path, picture, map):
    pictures = [picture.format(i) for i in range(4)]
    write_pictures(tmp_path, *pictures, *(map.format(i) for i in range(4)))
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == pictures and (not dataset.classes or "PH2" in picture)
    assert {path: str(file) for path, file in dataset.maps.items()} == {
        path: str(tmp_path / map.format(i)) for i, path in enumerate(pictures)
    }


def test_of_two_segmentations_of_each_picture_one_is_taken_and_it_is_said(tmp_path):
    write_pictures(tmp_path, *(f"Image_{i}L{end}" for i in range(4) for end in (".jpg", "_1stHO.png", "_2ndHO.png")))
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == [f"Image_{i}L.jpg" for i in range(4)] and len(dataset.maps) == 4
    assert "4 pictures have several maps beside them, of which one is used: of Image_0L.jpg it is Image_0L_1stHO.png." in said(dataset)


def test_masks_of_single_cells_beside_a_folder_images_are_no_pictures(tmp_path):
    for i in range(5):
        write_pictures(tmp_path, f"stage1_train/a{i}/images/a{i}.png", *each(f"stage1_train/a{i}/masks", 3, pre=f"m{i}x", ending=".png"))
    write_pictures(tmp_path, *(f"stage1_test/b{i}/images/b{i}.png" for i in range(2)))
    train = opened(tmp_path)
    assert names(train) == [f"stage1_train/a{i}/images/a{i}.png" for i in range(5)] and len(opened(tmp_path, "val")) == 2
    assert "15 maps belong to no picture, the first stage1_train/a0/masks/m0x0.png." in said(train)


def test_a_map_is_never_that_of_a_picture_of_the_other_split(tmp_path):
    write_pictures(
        tmp_path, *each("train/images", 4), *each("train/masks", 4, ending="_mask.png"), *each("val/masks", 4, ending="_mask.png")
    )
    write_pictures(tmp_path, "val/images/9.jpg")
    train = opened(tmp_path)
    assert all(path.is_relative_to(tmp_path / "train") for path in train.maps.values()) and len(train.maps) == 4
    assert "4 maps belong to no picture, the first val/masks/0_mask.png." in said(train)


@pytest.mark.parametrize(
    "folders",
    [
        ("mask", "no_mask", "incorrect_mask"),
        ("with_mask", "without_mask"),
        ("masks", "hats"),
        ("labels", "boxes"),
        ("gt", "suv"),
        ("manual", "automatic"),
        ("lesion", "normal"),
    ],
)
def test_classes_that_are_called_as_maps_are_stay_classes(tmp_path, folders):
    write_pictures(tmp_path, *(path for name in folders for path in numbered(name, 4)))
    dataset = opened(tmp_path, val_share=0)
    assert len(labels(dataset)) == 4 * len(folders) and not dataset.has_maps


def test_folders_of_one_name_that_may_hold_maps_are_one_sentence(tmp_path):
    write_pictures(tmp_path, *(path for k in range(6) for name in ("A", "B", "label") for path in each(f"{k}/{name}", 2, pre=f"{k}_")))
    found = [sentence for sentence in opened(tmp_path, val_share=0).remarks if "called as" in sentence]
    assert len(found) == 1 and found[0].startswith(
        "0/label/, 1/label/, 2/label/ and 3 more are called as folders of maps are, but their 12"
    )


@pytest.mark.parametrize("folders", [("images", "maps", "charts"), ("photos", "maps")])
def test_classes_of_other_names_beside_images_or_photos_stay_classes(tmp_path, folders):
    write_pictures(tmp_path, *(path for name in folders for path in each(name, 4, pre=name)))
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 4 * len(folders) and not dataset.has_maps
