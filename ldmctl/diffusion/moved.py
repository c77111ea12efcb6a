"""Files that a picture was made of, which its text knows by hashes, and where they lie now."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ldmctl.config.documents import parse_override
from ldmctl.errors import ConfigError, DataError, MismatchError, MissingError
from ldmctl.pictures.recorded import Recorded
from ldmctl.storage.apart import folder_of

PLACES = {
    "start": "--from",
    "mask": "--mask",
    "autoguide": "--autoguide",
    "map": "--map",
    "picture": "--picture",
    "token": "--token",
}  # keys of places, whose files the text knows by hashes
HASHES = {"start": "pictures", "mask": "painted", "autoguide": "weaker", "map": "mapped", "picture": "shown", "token": "learned"}
PICTURES = re.compile(r"image|picture")  # in the keys of a guide that name a file
WEIGHTS = re.compile(r"file|weights|heads|path")
GUIDE = "guide."  # what KEY=VALUE begins with where a guide's file lies now
SHORT = 12  # digits of a hash that are shown

Path_ = tuple[str, ...]  # of a key in the keys of a guide


def named_anew(picture: Recorded, words: Sequence[str]) -> list[dict[str, Any]]:
    """The guides of a picture with their files where `guide.KEY=FILE` says; a ConfigError for what is no file of theirs, whose hash is known."""
    guides = deepcopy(picture.said.get("guide") or [])
    for word in words:
        place, path = _meant(picture, guides, word.partition("=")[0])
        value: Any = parse_override(word)
        for key in word.partition("=")[0].strip().split("."):
            value = value[key]
        inner = guides[place]
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = str(value)
    return guides


def _meant(picture: Recorded, guides: Sequence[Mapping[str, Any]], key: str) -> tuple[int, Path_]:
    """(which guide, the path of its key) that `guide.image`, or of several guides `guide.1.image`, stands for."""
    path = tuple(key.strip().split(".")[1:])
    numbered = path[0].isdecimal()
    wanted = path[1:] if numbered else path
    found = [place for place, guide in enumerate(guides) if wanted in dict(_files(guide)) and _stamp(picture, place)]
    found = [place for place in found if not numbered or place == int(path[0])]
    if len(found) > 1:
        ways = " or ".join(f"{GUIDE}{place}.{'.'.join(wanted)}" for place in found)
        raise ConfigError(f"{picture.file} was made with several guides that have such a file: write {ways}.")
    if not found:
        known = [f"{GUIDE}{'.'.join(path)}" for place, guide in enumerate(guides) if _stamp(picture, place) for path, _ in _files(guide)]
        raise ConfigError(
            f"{key} names no file that {picture.file} was guided by, and --again changes nothing of a picture."
            + (f" Its files are {', '.join(dict.fromkeys(known))}." if known else " Leave it away.")
        )
    return found[0], wanted


def refuse_gone(picture: Recorded, places: Mapping[str, Any], guides: Sequence[Mapping[str, Any]]) -> None:
    """An error that names a file of which a picture was made, that is not where it was and whose new place nobody has said."""
    said = picture.said
    for key, option in PLACES.items():
        for name in [said[key]] if isinstance(said.get(key), str) else said.get(key) or []:
            if key not in places and not _there(folder_of(name) if key == "autoguide" else Path(name)):
                lost = MismatchError if key in ("autoguide", "token") else DataError
                raise lost(_gone(picture, name, said.get(HASHES[key]), f"{option} PLACE"))
    for place, guide in enumerate(guides):
        for path, name in _files(guide):
            if (stamp := _stamp(picture, place)) and not _there(Path(name)) and (place, path, name) in _recorded_files(picture):
                number = f"{place}." if len(guides) > 1 else ""
                kind = DataError if PICTURES.search(path[-1]) else MissingError
                raise kind(_gone(picture, name, stamp, f"{GUIDE}{number}{'.'.join(path)}=PLACE"))


def as_recorded(picture: Recorded, guides: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The keys of guides with the files of those whose hash is known named as the picture names them."""
    found = [deepcopy(dict(guide)) for guide in guides]
    for place, path, name in _recorded_files(picture):
        inner: Any = found[place] if place < len(found) else {}
        for key in path[:-1]:
            inner = inner.get(key) or {}
        if isinstance(inner.get(path[-1]), str) and _stamp(picture, place):
            inner[path[-1]] = name
    return found


def _recorded_files(picture: Recorded) -> list[tuple[int, Path_, str]]:
    return [(place, path, name) for place, guide in enumerate(picture.said.get("guide") or []) for path, name in _files(guide)]


def _files(guide: Mapping[str, Any], before: Path_ = ()) -> Iterator[tuple[Path_, str]]:
    """The keys of a guide that name files, at any depth, and what they name."""
    for key, value in guide.items():
        if isinstance(value, Mapping):
            yield from _files(value, (*before, key))
        elif isinstance(value, str) and (PICTURES.search(key) or WEIGHTS.search(key)):
            yield (*before, key), value


def _stamp(picture: Recorded, place: int) -> str | None:
    """The hash of what a guide works by; None where it is not known."""
    stamps = picture.said.get("guided_by") or []
    return stamps[place] if place < len(stamps) else None


def _there(path: Path) -> bool:
    return os.path.exists(path.expanduser())


def _gone(picture: Recorded, name: str, known: Any, way: str) -> str:
    known = ", ".join(str(each)[:SHORT] for each in known) if isinstance(known, list) else str(known)[:SHORT]
    return f"{picture.file} was made of {name} (hash {known}), which is not there. Say where it lies now: {way}."
