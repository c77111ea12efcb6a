"""What a JSON file may be as a table: a list of objects or of file names, an object by file name or by split, StyleGAN's labels, COCO."""

from collections.abc import Mapping
from typing import Any

from . import _coco
from ._splits import split_word


def rows(whole: Any, stem: str, where: str) -> list[dict[str, Any]] | None:
    """Rows with `file_name`; None of a value of another form. `stem` is the name of the file, which may say what the values are."""
    if _coco.is_coco(whole):
        return _coco.rows(whole, where)
    if isinstance(whole, dict) and whole:
        whole = _of_object(whole, stem)
    if isinstance(whole, list) and whole and all(isinstance(each, str) for each in whole):
        whole = [{"file_name": name} for name in whole]
    return whole if isinstance(whole, list) and all(isinstance(row, dict) for row in whole) else None


def _of_object(whole: dict[str, Any], stem: str) -> Any:
    """The rows of an object; itself where it has none."""
    kind = "captions" if "caption" in stem.lower() else "label" if "label" in stem.lower() else ""
    values = list(whole.values())
    if isinstance(whole.get("labels"), list) and len(whole) == 1:  # as StyleGAN has it
        return [dict(zip(("file_name", "label"), row, strict=True)) if _is_pair(row) else row for row in whole["labels"]]
    if all(isinstance(value, dict) for value in values):
        return [{"file_name": name, **row} for name, row in whole.items()]
    if all(isinstance(value, list) for value in values) and _are_splits(whole):
        return [{**_row(each), "split": split} for split, each_of in whole.items() for each in each_of]
    if all(isinstance(value, str) for value in values) and _are_splits(set(values)):
        return [{"file_name": name, "split": split} for name, split in whole.items()]
    if kind and not any(isinstance(value, dict) for value in values):
        return [{"file_name": name, kind: value} for name, value in whole.items()]
    return whole


def _are_splits(names: Mapping[str, Any] | set[str]) -> bool:
    """Whether names are those of splits, of training and of held-out pictures."""
    return {split_word(name)[0] for name in names} == {"train", "val"}


def _row(each: Any) -> dict[str, Any]:
    return each if isinstance(each, dict) else {"file_name": each}


def _is_pair(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2
