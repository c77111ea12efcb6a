"""Rows of JSON objects in each other with the names of pictures in lists: by class as in Food-101, by split as in CoOp's, or by both."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ._splits import split_word

Leaf = tuple[tuple[str, ...], Any]  # keys, from outside, and what is in the list below them


def rows(whole: Mapping[str, Any], known: Collection[str]) -> list[dict[str, Any]] | None:
    """{"file_name", perhaps "split" and "label"} of each name; None of another form, or where less than half are `known`.

    These are the last parts of the pictures' paths, case folded.
    """
    leaves = [*_leaves(whole)]
    names = [_name(item) for _, item in leaves]
    stems = {*known, *(PurePosixPath(name).stem for name in known)}
    if not names or not all(names) or 2 * sum(_last(name) in stems for name in names) < len(names):
        return None
    depths = {len(keys) for keys, _ in leaves}
    if len(depths) > 1 or any(_last(key) in stems for keys, _ in leaves for key in keys):
        return None
    roles = [_role({keys[depth] for keys, _ in leaves}) for depth in range(depths.pop())]
    if len(set(roles)) < len(roles):
        return None
    kept = {
        role
        for role, names in zip(roles, zip(*(keys for keys, _ in leaves), strict=True), strict=True)
        if role == "split" or len(set(names)) > 1
    }
    return [{**{role: key for role, key in zip(roles, keys, strict=True) if role in kept}, **row_of(item)} for keys, item in leaves]


def row_of(item: Any) -> dict[str, Any]:
    """`cat/1.jpg`, or with its class: ["cat/1.jpg", 0, "cat"]; an object as it is."""
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, list) and 2 <= len(item) <= 3 and isinstance(item[0], str) and isinstance(item[-1], str | int):
        return {"file_name": item[0], "label": item[-1]}
    return {"file_name": item}


def _leaves(value: Any, keys: tuple[str, ...] = ()) -> Iterator[Leaf]:
    if isinstance(value, Mapping) and len(keys) < 2:
        for key, inner in value.items():
            yield from _leaves(inner, (*keys, str(key)))
    elif isinstance(value, list) and keys:
        yield from ((keys, item) for item in value)
    else:
        yield keys, None


def _name(item: Any) -> str:
    name = row_of(item).get("file_name")
    return name if isinstance(name, str) else ""


def _last(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].strip().casefold()


def _role(keys: Collection[str]) -> str:
    return "split" if all(split_word(key)[0] for key in keys) else "label"
