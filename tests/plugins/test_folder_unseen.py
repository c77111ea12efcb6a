"""Classes as one sees them: characters that cannot be seen make no class of their own, and stay where they mean something."""

import json
import unicodedata

import pytest
from folders import labels, numbered, opened, said, write_pictures, write_texts

from ldmctl_plugins.datasets._names import visible

SAME = ["cat\u200b", "\ufeffcat", "cat\u00a0", "ca\u00adt", "cat ", "\u200ecat\u200f", "c\u2060at", "cat\u200d", "c\u200cat", "\u2009cat"]
MEANT = ["می\u200cخواهم", "क्\u200dष", "👩\u200d🔬", "日本\u3000語", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"]


@pytest.mark.parametrize("other", SAME)
def test_folders_that_differ_in_what_cannot_be_seen_are_one_class(tmp_path, other):
    write_pictures(tmp_path, *numbered("cat", 2), *numbered(other, 2), *numbered("dog", 2))
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == ["cat", "dog"] and list(labels(dataset).values()).count("cat") == 4
    told = "The class cat is written with characters that cannot be seen ("
    assert said(dataset).count(told) == (other != "cat "), "spaces around a name are no characters of it, and never were"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("other", SAME)
def test_so_are_those_of_a_table(tmp_path, other, form):
    names = numbered("images", 6)
    write_pictures(tmp_path, *names)
    pairs = [(name, ["cat", other, "dog"][i % 3]) for i, name in enumerate(names)]
    csv = "file_name,label\n" + "".join(f'{name},"{label}"\n' for name, label in pairs)
    lines = "".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in pairs)
    write_texts(tmp_path, {f"metadata.{form}": csv if form == "csv" else lines})
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == ["cat", "dog"] and list(labels(dataset).values()).count("cat") == 4
    assert said(dataset).count("The class cat is written with characters that cannot be seen (") == (other != "cat ")


def test_several_of_them_are_said_in_one_sentence(tmp_path):
    kinds = ("cat", "cat\u200b", "dog\u200b", "cow\u00ad")
    write_pictures(tmp_path, *(name for kind in kinds for name in numbered(kind, 2)))
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == ["cat", "cow", "dog"]
    assert said(dataset).count("that cannot be seen") == 1
    assert (
        "The class cat is written with characters that cannot be seen (cat\\u200b), and so are 2 more. They make no other class."
        in said(dataset)
    )


@pytest.mark.parametrize("name", MEANT)
def test_joiners_within_a_word_of_their_script_or_an_emoji_stay(tmp_path, name):
    assert visible(name) == unicodedata.normalize("NFC", name)
    assert visible(f"\u200d{name}\u200c \u200b") == visible(name), "at its ends they join nothing"
    write_pictures(tmp_path, *numbered(name, 2), *numbered(name.replace("\u200d", "").replace("\u200c", ""), 2), *numbered("dog", 2))
    dataset = opened(tmp_path, val_share=0)
    assert visible(name) in dataset.classes and "cannot be seen" not in said(dataset)


@pytest.mark.parametrize("held", ["val\u200b", "\ufefftest", "va\u00adl", "valid\u00a0"])
def test_a_folder_of_held_out_pictures_is_known_by_what_one_sees(tmp_path, held):
    write_pictures(tmp_path, *numbered("train", 4), *numbered(held, 2))
    assert [len(opened(tmp_path, split)) for split in ("train", "val")] == [4, 2]


@pytest.mark.parametrize("held", ["val\u200b", "\ufefftest", "va\u00adl"])
def test_a_cell_of_a_split_is_known_by_what_one_sees(tmp_path, held):
    names = numbered("images", 6)
    write_pictures(tmp_path, *names)
    rows = "".join(f"{name},{'train' if i < 4 else held}\n" for i, name in enumerate(names))
    write_texts(tmp_path, {"metadata.csv": f"file_name,split\n{rows}"})
    assert [len(opened(tmp_path, split)) for split in ("train", "val")] == [4, 2]


@pytest.mark.parametrize("nothing", [[], [None], [""], {}, None, "", "[]", "\u200b", float("nan")])
def test_an_empty_list_is_no_label_as_null_is(tmp_path, nothing):
    names = numbered("images", 4)
    write_pictures(tmp_path, *names)
    values = ["cat", "dog", nothing, "cat"]
    rows = "".join(json.dumps({"file_name": name, "label": value}) + "\n" for name, value in zip(names, values, strict=True))
    write_texts(tmp_path, {"metadata.jsonl": rows})
    dataset = opened(tmp_path, val_share=0)
    assert dataset.classes == ["cat", "dog"] and dataset.labels == [0, 1, -1, 0]
