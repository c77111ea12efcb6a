"""What else lies in people's folders: captions beside pictures, endings that are not read, names of any bytes, folders that are closed."""

import json
import os
import sys
from types import ModuleType

import pytest
import torch
from folders import captions, labels, names, numbered, opened, said, write_pictures
from PIL import Image

from ldmctl.cli.app import run
from ldmctl.errors import DataError
from ldmctl.pictures.png import write_png
from ldmctl.pictures.said import is_sheet
from ldmctl_plugins.datasets import _formats as formats

# -- captions beside pictures --------------------------------------------------


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".Txt", ".caption", ".png.txt"])
def test_captions_beside_pictures_are_read_whatever_their_ending(tmp_path, suffix):
    write_pictures(tmp_path, "a/1.png", "a/2.png")
    (tmp_path / "a" / f"1{suffix}").write_text("one\n")
    dataset = opened(tmp_path, val_share=0)
    assert captions(dataset) == {"a/1.png": "one"} and dataset.counts["captions"] == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_captions_in_any_usual_encoding_are_read(tmp_path, encoding):
    write_pictures(tmp_path, "1.png")
    (tmp_path / "1.txt").write_bytes("ein grünes Blatt – “ja”".encode(encoding))
    dataset = opened(tmp_path, val_share=0)
    assert captions(dataset) == {"1.png": "ein grünes Blatt – “ja”"}
    guessed = [each for each in dataset.warnings if "not in UTF-8" in each and "1.txt" in each]
    assert bool(guessed) == (encoding in ("utf-16-le", "utf-16-be", "cp1252"))


def test_empty_captions_do_not_count_and_texts_of_no_picture_are_named(tmp_path):
    write_pictures(tmp_path, "1.png", "2.png")
    (tmp_path / "1.txt").write_text(" \n")
    (tmp_path / "2.txt").write_text("two")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "1.cap").write_text("unread")
    dataset = opened(tmp_path, val_share=0)
    assert dataset.counts["captions"] == 1
    assert "1 text file belongs to no picture, the first notes.txt." in said(dataset)
    assert "Files beside pictures that are not read: 1 .cap." in said(dataset)


def test_a_caption_that_cannot_be_read_is_none_and_is_said(tmp_path, monkeypatch):
    write_pictures(tmp_path, "1.png", "2.png")
    (tmp_path / "1.txt").write_text("one")
    (tmp_path / "2.txt").write_text("two")
    read = type(tmp_path).read_bytes

    def refuse(path):
        if path.name == "1.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    dataset = opened(tmp_path, val_share=0)
    assert captions(dataset) == {"2.png": "two"} and "1 caption file of train cannot be read (Permission denied) and is left out" in said(
        dataset
    )


# -- endings -------------------------------------------------------------------


def test_endings_that_are_not_read_are_counted_in_one_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "register", frozenset)
    write_pictures(tmp_path, "1.png", "2.png")
    for name in ("a.heic", "b.HEIC", "c.jxl", "d.tga", "e", "notes.md", "LICENSE", "x.zip"):
        (tmp_path / name).write_bytes(b"something")
    dataset = opened(tmp_path, val_share=0)
    (warning,) = dataset.warnings
    assert "5 files are not read because of their endings: 2 .heic, 1 .jxl, 1 .tga, 1 without an ending." in warning
    assert "Install pillow-heif and pillow-jxl-plugin" in warning and "dataset.suffixes" in warning


UNREAD = ["labels.xlsx", "captions.csv.gz", "annotations.xml", "meta.yaml", "a.db", "a.sqlite", "a.pkl", "a.mat", "a.h5"]
UNREAD += ["Labels.zip", "a/metadata.jsonl.zst", "Annotations/0001.xml", "labels_train.npz", "a.XLS", "a.ods"]


@pytest.mark.parametrize("name", UNREAD)
def test_a_table_in_a_form_that_is_not_read_is_named(tmp_path, name):
    write_pictures(tmp_path, "1.png", "2.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"something")
    assert opened(tmp_path, val_share=0).warnings == [
        f"1 file that may hold labels or captions is not read: {name}. "
        "Tables end in .jsonl, .ndjson, .json, .csv, .tsv or .parquet; save it so."
    ]
    assert not opened(tmp_path, val_share=0, tables=False).warnings


def test_what_systems_and_tools_leave_beside_pictures_is_no_table(tmp_path):
    write_pictures(tmp_path, "1.png", "labels_2.png", "meta/3.png")
    for name in (
        "Thumbs.db",
        "config.yaml",
        "pictures.tar.gz",
        "labels_2.xml",
        "meta/3.xml",
        "label.py",
        "readme.html",
        "weights.npz",
        "metal.npz",
    ):
        (tmp_path / name).write_bytes(b"something")
    (tmp_path / "labels.xlsx").touch()
    assert not opened(tmp_path, val_share=0).warnings


def test_an_installed_package_adds_its_endings(tmp_path, monkeypatch):
    asked = []
    plugin = ModuleType("pillow_heif")
    plugin.register_heif_opener = lambda: asked.append("heif")
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    formats.register.cache_clear()
    try:
        write_pictures(tmp_path, "1.heic", "2.png", "3.jxl")
        assert names(opened(tmp_path, val_share=0)) == ["1.heic", "2.png"] and asked == ["heif"]
        assert names(opened(tmp_path, val_share=0, suffixes=[".png"])) == ["2.png"]  # who names the endings gets these
    finally:
        formats.register.cache_clear()


@pytest.mark.parametrize(("module", "suffix"), [("pillow_heif", ".heic"), ("pillow_jxl", ".jxl")])
def test_heic_and_jpeg_xl_are_read_where_their_package_is(tmp_path, module, suffix):
    pytest.importorskip(module, reason=f"{module} is not installed")
    write_pictures(tmp_path, "1.png")
    formats.register()
    Image.new("RGB", (16, 16), "red").save(tmp_path / f"2{suffix}")
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == ["1.png", f"2{suffix}"] and not dataset.warnings
    red, green, blue = dataset[1].picture.convert("RGB").getpixel((8, 8))
    assert red > 200 and green < 40 and blue < 40


def test_empty_and_hidden_pictures_and_links_to_nothing_are_said(tmp_path):
    write_pictures(tmp_path, "1.png", ".2.png", ".old/3.png", "._1.png")
    (tmp_path / "4.png").touch()
    (tmp_path / "5.png").symlink_to("gone.png")
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == ["1.png"]
    assert "1 picture file is empty, the first 4.png." in said(
        dataset
    ) and "1 link or special file cannot be opened, the first 5.png." in said(dataset)
    assert "Hidden files and folders are left out: .2.png and .old/." in said(dataset)


# -- names and folders -----------------------------------------------------------


def test_names_that_are_no_utf8_are_read_and_their_classes_can_be_typed(tmp_path):
    write_pictures(tmp_path, os.fsdecode(b"train/caf\xe9/\xff.png"), "train/dog/1.png", "val/caf\u00e9/1.png")
    train, held = opened(tmp_path), opened(tmp_path, "val")
    assert train.classes == ["caf\u00e9", "dog"] == held.classes and len(labels(train)) == 2
    assert train[0].picture.size == (8, 8)
    assert train.stamp(0).startswith(os.fsdecode(b"train/caf\xe9/\xff.png:"))


@pytest.mark.parametrize("name", ["new\nline.png", "tab\t.png", 'quote".png', "emoji\U0001f600.png", "sep\u2028.png", "colon:1:2.png"])
def test_names_of_any_characters_are_read(tmp_path, name):
    write_pictures(tmp_path, name, "b.png")
    assert name in names(opened(tmp_path, val_share=0))


def test_a_folder_that_may_not_be_read_is_left_out_with_a_warning(tmp_path, monkeypatch):
    write_pictures(tmp_path, *numbered("a", 2), *numbered("lost+found", 2))
    listing = os.scandir

    def refuse(path):
        if os.path.basename(path) == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = "lost+found"
    dataset = opened(tmp_path, val_share=0)
    assert names(dataset) == numbered("a", 2)
    assert dataset.warnings == ["The folder lost+found/ cannot be read (Permission denied) and is left out."]
    refused = tmp_path.name
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        opened(tmp_path)


# -- sheets of ldmctl --------------------------------------------------------------


def sheet(file, **text):
    """A picture as ldmctl writes it, with these entries."""
    write_png(file, torch.zeros(3, 12, 12, dtype=torch.uint8), text)


@pytest.mark.parametrize("prompt", ["a red circle", "ein grünes “Blatt” \U0001f343", 'a "grid": [0] of it'])
def test_what_ldmctl_made_of_other_pictures_is_left_out_and_said(tmp_path, prompt):
    write_pictures(tmp_path, "trace.jpg", "deeper/grid.png", "alike.png")  # somebody's own
    for seed in (0, 1):
        sheet(tmp_path / f"{seed:06d}.png", ldmctl=json.dumps({"prompt": prompt, "seed": seed, "steps": 2}, ensure_ascii=False))
    sheet(tmp_path / "latents.png", ldmctl=json.dumps({"prompt": prompt, "seed": 3}, ensure_ascii=False))  # a sample by another name
    sheet(tmp_path / "grid.png", ldmctl=json.dumps({"grid": [0, 1], "rows": [prompt], "steps": 2}, ensure_ascii=False), made="now")
    assert names(opened(tmp_path, val_share=0)) == ["000000.png", "000001.png", "alike.png", "deeper/grid.png", "latents.png", "trace.jpg"]
    assert "grid.png is left out: ldmctl made it of other pictures." in opened(tmp_path).remarks
    sheet(tmp_path / "deeper" / "trace.png", ldmctl=json.dumps({"trace": [0], "steps": 2}))
    Image.new("RGB", (8, 8)).save(tmp_path / "deeper" / "trace.gif")
    sheet(tmp_path / "closest.png", Description="Rows: sample, nearest training picture.")
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset) == 6 and all(is_sheet(tmp_path / name) for name in ("grid.png", "closest.png", "deeper/trace.gif"))
    assert "closest.png, deeper/trace.gif, deeper/trace.png and grid.png are left out: ldmctl made them of other pictures." in said(dataset)


def test_data_check_counts_no_grid_of_ldmctl(tmp_path, capsys):
    write_pictures(tmp_path, "1.png", "2.png", "3.png")
    sheet(tmp_path / "grid.png", ldmctl=json.dumps({"grid": [0, 1]}))
    assert run(["data", "check", str(tmp_path), "--size", "8", "--json"]) == 0
    heard = capsys.readouterr()
    assert sum(json.loads(heard.out)["splits"].values()) == 3
    assert "grid.png is left out: ldmctl made it of other pictures." in heard.err
