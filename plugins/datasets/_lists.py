"""Lists of the pictures of one split: `train.txt` and `val.txt`, `annotations/trainval.txt`, a CSV without a header.

What names a picture in a line is the whole line, what stands before a tab or comma, its first word, or a word that ends as
pictures do; with or without folders and ending, as long as only one picture can be meant.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from . import _captions
from ._formats import SUFFIXES, ending
from ._names import alike, shown
from ._split_lists import LISTS, speaker
from ._tree import File

ENDINGS = (".txt", ".lst", ".list", ".csv", ".tsv", "")
LARGEST = 1 << 28  # bytes
MOST = 500  # lists; of more files each is rather a caption of a picture that lies elsewhere
FEW = 8  # files in a folder by whose name they are lists


class List(NamedTuple):
    """Lines that name pictures."""

    path: str  # relative to the root
    speaker: str  # whose name says of which split: the file, or a folder above it
    lines: list[str]


@dataclass
class Named:
    """What lists say, by picture."""

    of: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # (LISTS, whose name says of which split)
    doubtful: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # the same of lines that fit several pictures
    files: set[str] = field(default_factory=set)  # that are lists
    words: list[dict[str, str]] = field(default_factory=list)  # what stands after each picture that a list names, which may be its class
    warnings: list[str] = field(default_factory=list)


def candidates(root: Path, others: Iterable[File], pictures: Iterable[str], folders: set[str], failed: Iterable[str]) -> list[List]:
    """The files that may be lists by their names; `failed` are tables that are none. `folders` are those with pictures."""
    tables, found = set(failed), dict[str, str]()
    texts = [
        file
        for file in others
        if 0 < file.size <= LARGEST and ((end := ending(file.path)) in ENDINGS[:3] or not end or file.path in tables)
    ]
    inside: dict[str, int] = defaultdict(int)
    for file in texts:
        inside[file.folder] += 1
    for file in texts:
        told = speaker(file.path, folders)
        if told and (told == file.path or inside[file.folder] <= FEW):
            found[file.path] = told
    if found:
        found = _without_captions(found, set(pictures))
    if len(found) > MOST:
        return []
    return [List(path, told, _captions.read(root / path)[0].splitlines()) for path, told in sorted(found.items())]


def _without_captions(found: dict[str, str], pictures: set[str]) -> dict[str, str]:
    """The same without files that are called as a picture beside them is, or, if a folder speaks for them or there are many, as any picture is."""
    captioned = {os.path.splitext(picture)[0] for picture in pictures} | pictures
    left = {path: told for path, told in found.items() if os.path.splitext(path)[0] not in captioned}
    stems = {alike(_stem(path)) for path in captioned}
    twins = {path for path in left if alike(_stem(path)) in stems}
    return {path: told for path, told in left.items() if path not in twins or (told == path and len(twins) <= FEW)}


def _stem(path: str) -> str:
    return os.path.splitext(path.rpartition("/")[2])[0]


def name(lists: Sequence[List], pictures: Iterable[str], held: set[str]) -> Named:
    """The pictures that lists name; a file of which less than half does is no list, unless it has names with the endings of pictures.

    A line that fits several is doubtful unless one of them is in `held`, which folders hold out.
    """
    out = Named()
    if not lists:
        return out
    index = Index(pictures)
    for each in lists:
        fits = [
            (line, index.of(line, each.path.rpartition("/")[0]))
            for line in each.lines
            if line.strip() and not line.lstrip().startswith("#")
        ]
        known = sum(bool(found) for _, found in fits)
        if not known or (2 * known < len(fits) and not any(found and _has_ending(line) for line, found in fits)):
            continue
        out.files.add(each.path)
        out.words.append(
            {found[0]: parts[1] for line, found in fits if len(found) == 1 and len(parts := line.replace(",", " ").split()) > 1}
        )
        for _, found in fits:
            for path in found if len(found) == 1 or held.isdisjoint(found) else ():
                (out.of if len(found) == 1 else out.doubtful).setdefault(path, []).append((LISTS, each.speaker))
        if strange := [line for line, found in fits if not found]:
            names = "line names" if len(strange) == 1 else "lines name"
            out.warnings.append(f"{shown(each.path)}: {len(strange):,} {names} no picture, the first {shown(strange[0].strip()[:80])}.")
    return out


def _has_ending(line: str) -> bool:
    return any(ending(word) in SUFFIXES for word in (line.strip(), *line.replace(",", " ").split()))


class Index:
    """Pictures by the ends of their paths, without their endings."""

    def __init__(self, pictures: Iterable[str]):
        self.by: dict[str, list[str]] = defaultdict(list)
        for path in pictures:
            parts = os.path.splitext(alike(path))[0].split("/")
            for start in range(len(parts)):
                self.by["/".join(parts[start:])].append(path)

    def of(self, line: str, folder: str) -> list[str]:
        """The pictures that a line may mean, by the longest end of the name that any has; of several those in the folder of the list."""
        for word in _words(line):
            parts = [part for part in alike(word.replace("\\", "/")).split("/") if part not in ("", ".", "..")]
            for start in range(len(parts)):
                end = "/".join(parts[start:])
                short = os.path.splitext(end)[0] if ending(end) in SUFFIXES else end
                if found := self.by.get(short):
                    exact = [path for path in found if alike(path) == end] or [path for path in found if alike(path).endswith(f"/{end}")]
                    near = [path for path in found if path.startswith(f"{folder}/")]
                    return exact if len(exact) == 1 else near or found
        return []


def _words(line: str) -> Iterator[str]:
    """What may name a picture in a line, the surest first."""
    line = line.strip().strip("\ufeff")
    yield line.strip("\"'")
    for mark in "\t,;|":
        if mark in line:
            yield line.partition(mark)[0].strip().strip("\"'")
    words = line.replace(",", " ").replace(";", " ").split()
    yield from words[:1]
    yield from (word for word in words[1:] if ending(word) in SUFFIXES)
