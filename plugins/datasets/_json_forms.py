"""What a JSON file may be as a table: a list of objects or of file names, an object by file name, split or class, StyleGAN's labels, COCO."""

from collections.abc import Collection, Mapping
from typing import Any

from . import _coco, _json_nested
from ._splits import split_word


def rows(whole: Any, stem: str, where: str, known: Collection[str]) -> list[dict[str, Any]] | None:
    """Rows with `file_name`; None of a value of another form. `stem` is the name of the file, which may say what the values are.

    `known` are the last parts of the pictures' paths, case folded.
    """
    if _coco.is_coco(whole):
        return _coco.rows(whole, where)
    if isinstance(whole, dict) and whole:
        whole = _of_object(whole, stem, known)
    if isinstance(whole, list) and whole and all(isinstance(each, str) for each in whole):
        whole = [{"file_name": name} for name in whole]
    return whole if isinstance(whole, list) and all(isinstance(row, dict) for row in whole) else None


def names_any(value: Any, known: Collection[str]) -> bool:
    """Whether a text anywhere in a JSON value ends as the path of a picture does."""
    if isinstance(value, Mapping):
        return any(names_any(each, known) for pair in value.items() for each in pair)
    if isinstance(value, list):
        return any(names_any(each, known) for each in value)
    return isinstance(value, str) and value.replace("\\", "/").rpartition("/")[2].strip().casefold() in known


def _of_object(whole: dict[str, Any], stem: str, known: Collection[str]) -> Any:
    """The rows of an object; itself where it has none."""
    kind = "captions" if "caption" in stem.lower() else "label" if "label" in stem.lower() else ""
    values = list(whole.values())
    if isinstance(whole.get("labels"), list) and len(whole) == 1:  # as StyleGAN has it
        return [dict(zip(("file_name", "label"), row, strict=True)) if _is_pair(row) else row for row in whole["labels"]]
    if nested := _json_nested.rows(whole, known):
        return nested
    if all(isinstance(value, dict) for value in values):
        return [{"file_name": name, **row} for name, row in whole.items()]
    if all(isinstance(value, list) for value in values) and _are_splits(whole):
        return [{**_json_nested.row_of(each), "split": split} for split, each_of in whole.items() for each in each_of]
    if all(isinstance(value, str) for value in values) and _are_splits(set(values)):
        return [{"file_name": name, "split": split} for name, split in whole.items()]
    if kind and not any(isinstance(value, dict) for value in values):
        return [{"file_name": name, kind: value} for name, value in whole.items()]
    return whole


def _are_splits(names: Mapping[str, Any] | set[str]) -> bool:
    """Whether names are those of splits, of training and of held-out pictures."""
    return {split_word(name)[0] for name in names} == {"train", "val"}


def _is_pair(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2
