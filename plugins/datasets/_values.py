"""What a cell of a table means: a label, captions, or nothing."""

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from ldmctl.errors import DataError

from ._names import composed, hides, visible

FILES = ("file_name", "filename", "file", "filepath", "file_path", "image_path", "image_file", "path")  # the first that is there
PERHAPS = (
    "image_id",
    "image_name",
    "img_name",
    "image",
    "img",
    "id",
    "name",
)  # the first whose values all name pictures, where none of FILES is there
CAPTIONS = ("text", "caption", "prompt", "texts", "captions", "prompts")
NOTHING = frozenset({"", "nan", "null", "n/a", "#n/a", "<na>", "[]", "{}"})  # as tables write a missing value, in any case
MAPS = ("map", "mask", "map_file_name", "mask_file_name", "map_path", "mask_path")  # the first that is there
NUMBER = re.compile(r"^([+-]?\d+)\.0+$")  # that is a whole one
SPLITS = ("split", "subset", "partition", "data_set")
USED = frozenset({*FILES, *CAPTIONS, *SPLITS, "label"})


def column(name: object) -> str:
    """`file_name` of ` File Name `."""
    return re.sub(r"[\s-]+", "_", composed(str(name)).casefold())


def name_of(value: Any) -> str:
    """A file name as it is written, `1` of 1.0; '' where there is none."""
    if value is None or (isinstance(value, float | Decimal) and not math.isfinite(value)):
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    name = str(int(value) if isinstance(value, float | Decimal) and value == int(value) else value)
    return name if name.strip() else ""


def label_of(value: Any, where: str) -> str | None:
    """One name for one class, however it is written (1, 1.0, "1 "; true, "True"); None where there is none. What is no name is a DataError."""
    if isinstance(value, Mapping | list | tuple) and all(each is None or each == "" for each in value):  # of no class
        return None
    if isinstance(value, Mapping | list | tuple):
        raise DataError(f"{where}: `label` is one name or number, not {value!r:.60}.")
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return None
        value = int(value) if value == int(value) else value
    text = visible(_text(value))
    return None if is_nothing(text) else _one_spelling(text)


def is_respelt(value: Any, label: str | None) -> bool:
    """Whether a class is written with characters that cannot be seen."""
    return label is not None and isinstance(value, str) and hides(value)


def splits_of(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(column, value) of every split that a row names, in words, numbers or lists of them."""
    return tuple((name, text) for name in SPLITS if name in row for text in words_of(row[name]) if text)


def words_of(value: Any) -> Iterable[str]:
    """The words of a cell that may name splits, or of a list of them."""
    if isinstance(value, list | tuple):
        return [text for each in value for text in words_of(each)]
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return []
    return [_one_spelling(visible(value) if isinstance(value, str) else _text(value))]


def _one_spelling(text: str) -> str:
    """`1` of `1.0`, `True` of `true`."""
    return text.capitalize() if text.casefold() in ("true", "false") else NUMBER.sub(r"\1", text)


def captions_of(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Every caption of a row by its columns, each once; the first is the one that is used."""
    return distinct(text for name in CAPTIONS if name in row for text in _captions(row[name], f"{where}: `{name}`"))


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """The same without the empty and the repeated ones."""
    return tuple(dict.fromkeys(text for text in texts if text))


def _captions(value: Any, where: str) -> Iterable[str]:
    if isinstance(value, Mapping):
        raise DataError(f"{where} is a text or a list of texts, not {value!r:.60}.")
    if isinstance(value, list | tuple):
        return [text for each in value for text in _captions(each, where)]
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return []
    text = value.strip() if isinstance(value, str) else _text(value)  # as it is written, also where it is half a character
    return [] if is_nothing(text) or text == "None" else [text]


def is_nothing(text: str) -> bool:
    """Whether a cell is empty, or says that its value is missing."""
    return text.casefold() in NOTHING or text == "NaT"  # of times, which a person called Nat is not


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return composed(value) if isinstance(value, str) else str(value)
