"""What a table or a caption file says and would lose without a word: keys twice, bytes for names, classes that differ in case, empty cells, zeros."""

import json

import pytest
from folders import captions, labels, names, numbered, opened, said, write_pictures, write_texts

from ldmctl.errors import DataError

FOUR = numbered("images", 4)


@pytest.mark.parametrize("values", [("a", "b"), ("train", "test")])
def test_a_key_twice_in_json_is_refused_and_not_heard_once(tmp_path, values):
    write_pictures(tmp_path, *FOUR)
    pairs = ", ".join(f'"{name}": "{value}"' for name, value in [*((name, values[0]) for name in FOUR), (FOUR[0], values[1])])
    write_texts(tmp_path, {"labels.json": f"{{{pairs}}}"})
    assert "labels.json is not used: one object has images/0.png twice, and either may be meant." in opened(tmp_path).warnings


def test_a_key_twice_with_one_value_changes_nothing(tmp_path):
    write_pictures(tmp_path, *FOUR)
    write_texts(tmp_path, {"labels.json": "{" + ", ".join(f'"{name}": "a"' for name in [*FOUR, FOUR[0]]) + "}"})
    assert labels(opened(tmp_path, val_share=0)) == dict.fromkeys(FOUR, "a")


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.json"])
def test_a_column_twice_in_a_row_of_json_is_refused_with_its_line(tmp_path, name):
    write_pictures(tmp_path, *FOUR)
    row = '{"file_name": "images/0.png", "text": "one", "text": "two"}'
    write_texts(tmp_path, {name: row if name.endswith("l") else f"[{row}]"})
    with pytest.raises(DataError, match=rf"{name}(, line 1)?: one object has text twice, and either may be meant\."):
        opened(tmp_path)


def test_names_and_captions_that_parquet_has_as_bytes_are_read(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_pictures(tmp_path, *FOUR)
    parquet.write_table(
        pyarrow.table({"file_name": [name.encode() for name in FOUR], "text": ["café".encode()] * 4}), tmp_path / "metadata.parquet"
    )
    assert set(captions(opened(tmp_path, val_share=0)).values()) == {"café"} and len(captions(opened(tmp_path, val_share=0))) == 4


@pytest.mark.parametrize(("words", "number"), [(("cat", "Cat"), "two"), (("cat", "Cat", "CAT"), "several")])
def test_classes_of_a_table_that_differ_in_case_are_said(tmp_path, words, number):
    write_pictures(tmp_path, *FOUR)
    write_texts(
        tmp_path, {"metadata.csv": "file_name,label\n" + "".join(f"{name},{words[i % len(words)]}\n" for i, name in enumerate(FOUR))}
    )
    dataset = opened(tmp_path, val_share=0)
    assert len(dataset.classes) == len(words) and f"{' and '.join(sorted(words))} differ in case alone and are {number} classes." in said(
        dataset
    )


def test_a_table_of_empty_cells_is_not_said_to_have_labels_or_splits(tmp_path):
    write_pictures(tmp_path, *FOUR)
    write_texts(tmp_path, {"metadata.json": json.dumps([{"file_name": name, "label": None, "text": ""} for name in FOUR])})
    dataset = opened(tmp_path)
    assert not dataset.classes and "There is no label and no caption in metadata.json: all cells of 4 rows are empty." in said(dataset)


def test_a_caption_file_of_zeros_is_no_caption(tmp_path):
    write_pictures(tmp_path, *FOUR)
    for name, content in zip(FOUR, (b"\0" * 10, b"\0", b"", b"a\0b\0"), strict=True):
        (tmp_path / name).with_suffix(".txt").write_bytes(content)
    assert captions(opened(tmp_path, val_share=0)) == {FOUR[3]: "ab"}


@pytest.mark.parametrize("rows", [["image/%C3%A9.png"], ["image/e%CC%81.png"], ["http://x.org/image/%C3%A9.png"]])
def test_a_name_in_a_web_address_is_that_of_the_picture(tmp_path, rows):
    write_pictures(tmp_path, "image/é.png", "image/100%25.png")
    write_texts(tmp_path, {"labels.csv": "file_name,label\n" + "".join(f"{row},x\n" for row in [*rows, "image/100%25.png"])})
    dataset = opened(tmp_path, val_share=0)
    assert sorted(labels(dataset)) == sorted(names(dataset))
