"""Rows of a JSON file as COCO has it: images, annotations of them by id, and the names of categories.

Every caption of a picture is kept. A category is a picture's label only where no
picture of the file has two, and two of them occur: what a picture shows beside
other things is not its class.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ldmctl.errors import DataError

from ._names import visible
from ._values import SPLITS, column


def is_coco(whole: Any) -> bool:
    """Whether a JSON value has COCO's two lists, or, as for a test split, that of images alone."""
    if not isinstance(whole, Mapping) or not isinstance(images := whole.get("images"), list):
        return False
    return isinstance(whole.get("annotations"), list) or ("annotations" not in whole and all(map(_is_image, images)))


def _is_image(row: Any) -> bool:
    return isinstance(row, Mapping) and isinstance(_name(row), str)


def _name(image: Mapping[str, Any]) -> Any:
    """`val2014/1.jpg` of COCO, or of Karpathy's splits of it, which have `filepath` and `filename`."""
    name = image["file_name"] if "file_name" in image else image.get("filename")
    return f"{image['filepath']}/{name}" if "file_name" not in image and image.get("filepath") and name else name


def rows(whole: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """{"file_name", perhaps "text" and "label", or "categories" where there are several} of each picture; what is no COCO is a DataError."""
    try:
        return _rows(whole)
    except (LookupError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise DataError(f"{where}: images and annotations are there, but not as COCO has them ({said:.100}).") from None


def _rows(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = {each["id"]: visible(str(each["name"])) for each in whole.get("categories") or []}
    captions: dict[Any, list[Any]] = defaultdict(list)
    shows: dict[Any, dict[str, None]] = defaultdict(dict)
    for each in whole.get("annotations", ()):
        if "caption" in each:
            captions[each["image_id"]].append(each["caption"])
        if each.get("category_id") is not None:
            shows[each["image_id"]][names.get(each["category_id"], str(each["category_id"]))] = None
    one_each = all(len(found) == 1 for found in shows.values()) and len({name for found in shows.values() for name in found}) > 1
    out = []
    for image in whole["images"]:
        row: dict[str, Any] = {"file_name": image["file_name"] if "annotations" in whole else _name(image)}
        row |= {key: value for key, value in image.items() if column(key) in SPLITS}
        if captions:
            row["text"] = captions.get(image["id"], [])
        elif sentences := image.get("sentences"):
            row["text"] = [each["raw"] for each in sentences]
        if found := list(shows.get(image.get("id"), ())):
            row["label" if one_each else "categories"] = found[0] if one_each else found
        out.append(row)
    return out
