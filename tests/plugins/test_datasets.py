"""Every dataset keeps the protocol, and each reads what people really have on their disks."""

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldmctl import registry
from ldmctl.config import documents, resolve
from ldmctl.errors import ConfigError, DataError
from ldmctl.pictures import images
from ldmctl_plugins.datasets.folder import Folder
from ldmctl_plugins.datasets.idx import Idx
from ldmctl_plugins.datasets.shapes import COLOURS, FILL, Shapes


def write_picture(path: Path, colour="red", size=(12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = PngInfo()
    said.add_text("name", "/".join(path.parts[-4:]))  # no file is a copy of another
    Image.new("RGB", size, colour).save(path, "PNG", pnginfo=said)  # the suffix says nothing about the bytes


def write_idx(path: Path, array: np.ndarray) -> None:
    content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_digits(root: Path, name="{split}-{what}-idx{dims}-ubyte", counts=(12, 6)) -> Path:
    for split, count in zip(("train", "t10k"), counts, strict=True):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 5, 7))
        write_idx(root / name.format(split=split, what="images", dims=3), pixels)
        write_idx(root / name.format(split=split, what="labels", dims=1), np.arange(count) % 10)
    return root


def folder(root: Path, split="train", **keys) -> Folder:
    return Folder(Folder.Config(type="folder", path=str(root), **keys), split=split)


def idx(root: Path, split="train", **keys) -> Idx:
    return Idx(Idx.Config(type="idx", path=str(root), **keys), split=split)


def shapes(split="train", **keys) -> Shapes:
    return Shapes(Shapes.Config(type="shapes", **keys), split=split)


def names(dataset: Folder) -> list[str]:
    return [file.path for file in dataset.files]


def label(dataset, index: int) -> str:
    number = dataset[index].label
    return "" if number < 0 else dataset.classes[number]


@pytest.fixture
def some(tmp_path):
    """What each built-in dataset needs to be made, by name."""
    for i in range(30):
        write_picture(tmp_path / "pets" / ("cat" if i % 2 else "dog") / f"{i}.png")
    write_digits(tmp_path / "digits")
    return {"folder": {"path": str(tmp_path / "pets")}, "idx": {"path": str(tmp_path / "digits")}, "shapes": {"count": 20, "val_count": 5}}


# -- all of them -------------------------------------------------------------


@pytest.mark.parametrize("name", [plugin.name for plugin in registry.plugins("dataset") if plugin.source.startswith("ldmctl")])
def test_every_dataset_keeps_the_protocol(name, some):
    made = {
        split: registry.load("dataset", name)(resolve.plugin_config("dataset", {"type": name, **some[name]}), split=split)
        for split in ("train", "val")
    }
    assert made["train"].classes == made["val"].classes
    stamps = [dataset.stamp(i) for dataset in made.values() for i in range(len(dataset))]
    assert len(set(stamps)) == len(stamps) > 0
    settings = SimpleNamespace(size=8, channels=3, crop="center", flip=False, background="white")
    for dataset in made.values():
        assert len(dataset) > 0
        again = pickle.loads(pickle.dumps(dataset))
        for i in (0, len(dataset) - 1):
            example = dataset[i]
            assert -1 <= example.label < len(dataset.classes) and isinstance(example.text, str)
            image = images.prepare(example.picture, settings)
            assert image.shape == (3, 8, 8)
            assert bool((images.prepare(again[i].picture, settings) == image).all()) and again.stamp(i) == dataset.stamp(i)
        with pytest.raises(IndexError):
            dataset[len(dataset)]


@pytest.mark.parametrize("name", ["celebhq", "fashion-mnist", "mnist", "shapes"])
def test_every_data_preset_parses_and_says_what_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LDMCTL_DATA", str(tmp_path))
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    path = Path(__file__).parents[2] / "configs" / "data" / f"{name}.yaml"
    preset = documents.read_yaml(path.read_text(), source=name)
    assert set(preset) == {"dataset", "image"}
    made = resolve.plugin_config("dataset", preset["dataset"])
    plugin = registry.load("dataset", made.type)
    if name == "shapes":
        assert len(plugin(made, split="train").classes) == 16
        return
    with pytest.raises(DataError, match="Looked for") as caught:
        plugin(made, split="train")
    assert all(str(tmp_path / place) in str(caught.value) for place in made.path)


# -- folder ------------------------------------------------------------------


def test_suffixes_count_in_any_case_and_hidden_or_empty_files_do_not(tmp_path):
    for name in ("b.PNG", "a.JpEg", "deep/er/c.webp", ".hidden.png", "._a.png", ".cache/d.png", "__MACOSX/e.png"):
        write_picture(tmp_path / name)
    (tmp_path / "zero.png").touch()
    (tmp_path / "notes.md").touch()
    assert names(folder(tmp_path, val_share=0)) == ["a.JpEg", "b.PNG", "deep/er/c.webp"]
    assert names(folder(tmp_path, val_share=0, suffixes=[".PNG"])) == ["b.PNG"]


@pytest.mark.parametrize("kind", ["empty", "texts", "zero"])
def test_a_folder_without_pictures_says_what_it_holds(tmp_path, kind):
    for i in range(3 if kind == "texts" else 0):
        (tmp_path / f"page{i}.html").write_text("hello")
    if kind == "zero":
        (tmp_path / "a.png").touch()
    with pytest.raises(DataError) as caught:
        folder(tmp_path)
    words = {"empty": ["no files"], "texts": ["3 .html", "page0.html"], "zero": ["1 .png", "a.png (empty)"]}[kind]
    assert all(word in str(caught.value) for word in [str(tmp_path), *words])


def test_a_file_in_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a file"):
        folder(tmp_path / "set.zip")


@pytest.mark.parametrize("val", ["val", "validation", "valid", "test", "Val"])
def test_sub_folders_split_and_classes_are_those_of_both(tmp_path, val):
    for name in ("train/cat/1.png", "train/dog/2.png", f"{val}/cat/3.png", f"{val}/owl/4.png", "cover.png"):
        write_picture(tmp_path / name)
    train, held = folder(tmp_path), folder(tmp_path, "val")
    assert names(train) == ["train/cat/1.png", "train/dog/2.png"]
    assert names(held) == [f"{val}/cat/3.png", f"{val}/owl/4.png"]
    assert train.classes == held.classes == ["cat", "dog", "owl"]
    assert [label(held, 0), label(held, 1)] == ["cat", "owl"]


def test_test_is_not_used_where_there_is_val(tmp_path):
    for name in ("train/1.png", "val/2.png", "test/3.png"):
        write_picture(tmp_path / name)
    assert names(folder(tmp_path, "val")) == ["val/2.png"] and folder(tmp_path).classes == []


def test_a_class_may_be_called_train(tmp_path):
    for name in ("car/1.png", "bus/2.png", "train/3.png"):
        write_picture(tmp_path / name)
    assert folder(tmp_path).classes == ["bus", "car", "train"]
    assert len(folder(tmp_path)) + len(folder(tmp_path, "val")) == 3


def test_a_folder_train_with_classes_in_it_is_the_split_whatever_is_beside_it(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "masks/1.png"):
        write_picture(tmp_path / name)
    assert sorted(names(folder(tmp_path, val_share=0))) == ["train/cat/1.png", "train/dog/2.png"]


def test_a_folder_with_one_picture_trains_on_it(tmp_path):
    for number in range(12):  # one in two of these names belongs to the held-out split
        write_picture(tmp_path / str(number) / f"{number}.png")
        assert len(folder(tmp_path / str(number), val_share=0.5)) == 1
        assert len(folder(tmp_path / str(number), "val", val_share=0.5)) == 0


def test_a_split_by_hash_survives_added_files(tmp_path):
    for i in range(200):
        write_picture(tmp_path / f"{i:04}.png", size=(2, 2))
    before = set(names(folder(tmp_path, "val", val_share=0.2)))
    assert 20 <= len(before) <= 60
    for i in range(200, 260):
        write_picture(tmp_path / f"{i:04}.png", size=(2, 2))
    train, held = (set(names(folder(tmp_path, split, val_share=0.2))) for split in ("train", "val"))
    assert {name for name in held if name < "0200.png"} == before
    assert not train & held and len(train | held) == 260


@pytest.mark.parametrize(("count", "train", "held"), [(1, 1, 0), (2, 1, 1), (3, 2, 1)])
def test_small_sets_leave_neither_split_empty(tmp_path, count, train, held):
    for i in range(count):
        write_picture(tmp_path / f"{i}.png")
    assert (len(folder(tmp_path, val_share=0.01)), len(folder(tmp_path, "val", val_share=0.01))) == (train, held)


def test_metadata_jsonl_gives_labels_and_captions(tmp_path):
    for name in ("train/1.png", "train/2.png", "train/3.png", "val/4.png"):
        write_picture(tmp_path / name)
    rows = [{"file_name": "2.png", "label": "dog", "text": "a dog"}, {"file_name": "./1.png", "label": "cat", "caption": ["a cat", "cats"]}]
    (tmp_path / "train/metadata.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (tmp_path / "val/metadata.jsonl").write_text(
        json.dumps({"file_name": "4.png", "label": "bird\u2028", "prompt": "a bird"}, ensure_ascii=False)
    )
    train, held = folder(tmp_path), folder(tmp_path, "val")
    assert train.classes == held.classes == ["bird", "cat", "dog"]
    assert [(label(train, i), train[i].text) for i in range(3)] == [("cat", "a cat"), ("dog", "a dog"), ("", "")]
    assert held[0].text == "a bird"


def test_metadata_csv_at_the_root_names_files_below(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png"):
        write_picture(tmp_path / name)
    (tmp_path / "metadata.csv").write_text('file_name,label,text\ntrain/a/1.png,10,"one, two"\ntrain/b/2.png,9,\nval/a/3.png,2,\n')
    train = folder(tmp_path)
    assert train.classes == ["2", "9", "10"] == folder(tmp_path, "val").classes
    assert (label(train, 0), train[0].text, label(train, 1)) == ("10", "one, two", "9")


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "a/../../1.png", "..\\1.png", "C:\\1.png", "https://x.org/1.png", "~/1.png"])
def test_metadata_may_not_leave_its_folder(tmp_path, name):
    write_picture(tmp_path / "set" / "1.png")
    (tmp_path / "set" / "metadata.jsonl").write_text(json.dumps({"file_name": name, "label": "x"}))
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 1: .* must be a path inside"):
        folder(tmp_path / "set")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "an object with `file_name`"),
        ('{"image": "1.png"}', "`file_name` is missing; found image"),
        ('{"file_name": "1.png", "label": [1]}', "one name or number"),
        ('{"file_name": "2.png", "label": 1}', "names none of the 1 pictures"),
    ],
)
def test_broken_metadata_is_a_sentence(tmp_path, line, words):
    write_picture(tmp_path / "1.png")
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError, match=words):
        folder(tmp_path)


def test_one_sub_folder_is_no_class(tmp_path):
    write_picture(tmp_path / "all" / "1.png")
    write_picture(tmp_path / "all" / "2.png")
    assert folder(tmp_path).classes == [] and folder(tmp_path)[0].label == -1


def test_captions_beside_the_pictures_are_read(tmp_path):
    write_picture(tmp_path / "1.png")
    (tmp_path / "1.txt").write_text("  a red picture\n")
    write_picture(tmp_path / "2.png")
    dataset = folder(tmp_path, val_share=0)
    assert [dataset[0].text, dataset[1].text] == ["a red picture", ""]


def test_a_broken_picture_names_itself(tmp_path):
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    (tmp_path / "a.jpg").write_bytes(file.getvalue()[:-300])
    (tmp_path / "b.jpg").write_text("<html>not found</html>")
    write_picture(tmp_path / "c.png")
    dataset = folder(tmp_path, val_share=0)
    settings = SimpleNamespace(size=32, channels=3, crop="center", flip=False, background="white")
    with pytest.raises(DataError, match=r"a\.jpg .*truncated"):
        images.prepare(dataset[0].picture, settings)
    with pytest.raises(DataError, match=r"b\.jpg cannot be read"):
        dataset[1]
    (tmp_path / "c.png").unlink()
    with pytest.raises(DataError, match=r"c\.png cannot be read"):
        dataset[2]


def test_a_stamp_changes_with_the_file(tmp_path):
    write_picture(tmp_path / "1.png")
    first = folder(tmp_path).stamp(0)
    info = os.stat(tmp_path / "1.png")
    assert first == f"1.png:{info.st_size}:{info.st_mtime_ns}"
    os.utime(tmp_path / "1.png", ns=(0, 1))
    assert folder(tmp_path).stamp(0) != first


def test_links_that_lead_back_end(tmp_path):
    write_picture(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    assert names(folder(tmp_path)) == ["a/1.png"]


# -- idx ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{split}-{what}-idx{dims}-ubyte", "{split}-{what}-idx{dims}-ubyte.gz", "{split}-{what}.idx{dims}-ubyte"])
def test_idx_files_are_read_plain_or_gzipped(tmp_path, name):
    write_digits(tmp_path, name)
    train, held = idx(tmp_path), idx(tmp_path, "val")
    assert (len(train), len(held)) == (12, 6)
    expected = np.random.default_rng(12).integers(0, 256, (12, 5, 7))
    assert all(np.array_equal(train[i].picture[0], expected[i]) and train[i].label == i % 10 for i in range(12))
    assert train[3].picture.shape == (1, 5, 7) and train[3].text == "", "no captions beside labels"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("cut", [2, -1])
def test_a_truncated_idx_file_is_an_error(tmp_path, suffix, cut):
    write_digits(tmp_path, "{split}-{what}-idx{dims}-ubyte" + suffix)
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        idx(tmp_path)


def test_idx_labels_and_names_must_fit(tmp_path):
    write_digits(tmp_path)
    with pytest.raises(DataError, match="names only 3"):
        idx(tmp_path, classes=["a", "b", "c"])
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(5))
    with pytest.raises(DataError, match="12 train pictures and 5 labels"):
        idx(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros((5, 1, 1)))
    with pytest.raises(DataError, match="1 dimension"):
        idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"holds none of train-labels-idx1-ubyte, train-labels-idx1-ubyte\.gz"):
        idx(tmp_path)


def test_a_set_is_not_downloaded_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("LDMCTL_DATA", str(tmp_path))
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    with pytest.raises(DataError, match="downloads are switched off"):
        Idx(Idx.Config(type="idx", path="MNIST/raw", download="mnist"), split="train")


def test_a_download_that_broke_off_is_taken_up_again(tmp_path, monkeypatch):
    from ldmctl_plugins.datasets import idx as module

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    write_digits(raw)
    content = (raw / "t10k-labels-idx1-ubyte").read_bytes()
    (raw / "t10k-labels-idx1-ubyte").unlink()
    asked = []

    def fetch(name):
        asked.append(name)
        (raw / "t10k-labels-idx1-ubyte").write_bytes(content)
        return ""

    monkeypatch.setenv("LDMCTL_DATA", str(tmp_path))
    monkeypatch.delenv("LDMCTL_OFFLINE", raising=False)
    monkeypatch.setattr(module, "_fetch", fetch)
    for _ in range(2):
        assert len(Idx(Idx.Config(type="idx", path="MNIST/raw", download="mnist"), split="val"))
    assert asked == ["MNIST"]


def test_a_torchvision_that_cannot_be_imported_is_survived(tmp_path, monkeypatch):
    monkeypatch.setenv("LDMCTL_DATA", str(tmp_path))
    monkeypatch.delenv("LDMCTL_OFFLINE", raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match="Downloading it failed"):
        Idx(Idx.Config(type="idx", path="digits", download="mnist"), split="train")


def test_stamps_of_digits_follow_their_content(tmp_path):
    write_digits(tmp_path)
    first = idx(tmp_path).stamp(0)
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((12, 5, 7)))
    assert idx(tmp_path).stamp(0) != first


# -- shapes ------------------------------------------------------------------


def test_shapes_depend_on_seed_split_and_number_alone():
    assert shapes(count=50)[7].picture.tobytes() == shapes(count=9)[7].picture.tobytes()
    drawn = {shapes(split, seed=seed)[7].picture.tobytes() for split in ("train", "val") for seed in (0, 1)}
    assert len(drawn) == 4
    assert shapes(count=50).stamp(7) == shapes(count=9).stamp(7) != shapes(count=9, seed=1).stamp(7)


def test_shapes_are_told_apart_by_the_two_numbers_of_their_page():
    dataset = shapes(count=400)
    for i in range(len(dataset)):
        example = dataset[i]
        array = np.asarray(example.picture).astype(int)
        chroma = array.max(2) - array.min(2)
        mask = chroma > chroma.max() / 2
        rows, columns = np.nonzero(mask)
        fill = mask.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
        shape = "square" if fill > 0.92 else "circle" if fill > 0.66 else "triangle" if fill > 0.48 else "star"
        colour = min(COLOURS, key=lambda name: abs(np.subtract(COLOURS[name], array[mask].mean(0))).sum())
        assert dataset.classes[example.label] == f"{colour} {shape}"
        assert not mask[0].any() and not mask[:, -1].any()
        assert example.text.startswith(f"a {colour} {shape} on a ")


def test_every_shape_and_colour_can_be_drawn():
    dataset = shapes(count=300, size=64, shapes=list(FILL), colours=list(COLOURS))
    assert {dataset[i].label for i in range(300)} == set(range(36))
    assert dataset[0].picture.size == (64, 64)


def test_drawn_pictures_and_stamps_are_what_they_were_before_there_were_sizes_and_maps():
    drawn = hashlib.sha256(b"".join(shapes()[i].picture.tobytes() for i in range(100)))
    assert drawn.hexdigest() == "70d3c1a5fe09e5cebc412503c35b4e829390808514cd2a0da7a0468919179043"
    assert shapes().stamp(3) == "train/3/626b1fe28b45b0f7" == shapes(maps=True, captions=3).stamp(3) != shapes(sizes="two").stamp(3)
    assert shapes(maps=True)[3].picture.tobytes() == shapes()[3].picture.tobytes()
    assert shapes()[0].map is None and shapes().map_classes == []


def test_captions_say_the_size_and_the_same_in_other_words():
    dataset = shapes(count=200, sizes="two", captions=4)
    assert {dataset[i].text.split()[1] for i in range(200)} == {"small", "large"}
    for i in range(20):
        what, found = dataset.combination(i), dataset.captions(i)
        assert found[0] == dataset[i].text == f"a {what.size} {what.colour} {what.shape} on a {what.background} background"
        assert len(set(found)) == 4 and all({*what} <= set(text.replace(",", "").split()) for text in found)


def test_the_map_of_a_shape_is_its_number_where_it_is_and_0_around_it():
    dataset = shapes(count=40, maps=True)
    assert dataset.map_classes == ["background", "circle", "square", "triangle", "star"] and dataset.has_maps
    for i in range(40):
        item = dataset[i]
        number = dataset.map_classes.index(dataset.classes[item.label].split()[1])
        pixels = np.asarray(item.picture).astype(int)
        chroma = pixels.max(2) - pixels.min(2)
        assert set(np.unique(item.map)) == {0, number}
        assert (item.map[chroma > 0.75 * chroma.max()] == number).all() and (item.map[chroma < 0.25 * chroma.max()] == 0).all()


def test_held_out_combinations_are_drawn_in_val_alone_and_no_word_is_new():
    keys = {"count": 900, "val_count": 300, "sizes": "two", "held_out": 0.2}
    drawn = {split: shapes(split, **keys) for split in ("train", "val")}
    sets = {split: {each.combination(i) for i in range(len(each))} for split, each in drawn.items()}
    assert not sets["train"] & sets["val"]
    assert (len(sets["train"]), len(sets["val"])) == (64 - 13, 13)
    assert [{each[place] for each in sets["train"]} for place in range(4)] == [
        {"circle", "square", "triangle", "star"},
        {"red", "green", "blue", "yellow"},
        {"small", "large"},
        {"dark", "light"},
    ]
    again = shapes("val", **keys)
    assert {again.combination(i) for i in range(300)} == sets["val"] and shapes("val", **{**keys, "seed": 1}).drawn != again.drawn


def test_held_out_words_hold_out_all_that_have_them():
    held = shapes("val", sizes="two", held_out=["small red circle", "blue star"]).drawn
    assert {(each.size, each.name) for each in held} == {("small", "red circle"), ("small", "blue star"), ("large", "blue star")}
    assert len(held) == 2 + 4 and not set(held) & set(shapes(sizes="two", held_out=["small red circle", "blue star"]).drawn)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["pink"], "no shape is drawn that is 'pink'"),
        (["red"], "leaves nothing to train on that is red"),
        (0.99, "can be held out so that"),
    ],
)
def test_what_cannot_be_held_out_is_a_sentence(asked, words):
    with pytest.raises(ConfigError, match=words):
        shapes(held_out=asked)


# -- real data ---------------------------------------------------------------

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared pictures are not on this machine")
def test_real_folders_and_digits_are_read():
    garments = {split: folder(SHARED / "clothing", split) for split in ("train", "val")}
    assert [len(garments[split]) for split in ("train", "val")] == [3870, 430]
    assert garments["train"].classes == garments["val"].classes and len(garments["val"].classes) == 17
    emoji = folder(SHARED / "noto-emoji")
    settings = SimpleNamespace(size=64, channels=3, crop="center", flip=False, background="white")
    assert (images.prepare(emoji[0].picture, settings)[:, 0, 0] == 255).all() and emoji[0].text
    for name in ("MNIST", "FashionMNIST"):
        assert (len(idx(SHARED / name / "raw")), len(idx(SHARED / name / "raw", "val"))) == (60000, 10000)
