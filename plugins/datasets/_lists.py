"""Lists of the pictures of one split: `train.txt` and `val.txt`, `annotations/trainval.txt`, a CSV without a header.

What names a picture in a line is the whole line, what stands before a tab or comma, its first word, or a word that ends as
pictures do; with or without folders and ending, as long as only one picture can be meant.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from . import _captions, _folds, _one_line
from ._formats import KNOWN, SUFFIXES, ending
from ._names import alike, shown
from ._split_lists import COLUMN, LISTS, is_plain, speaker, word_of
from ._tree import File
from ._values import FILES, PERHAPS

ENDINGS = (".txt", ".lst", ".list", ".csv", ".tsv", "")
LISTED = (*ENDINGS, ".json", ".jsonl", ".ndjson", ".parquet")
LARGEST = 1 << 28  # bytes
MOST = 500  # lists; of more files each is rather a caption of a picture that lies elsewhere
DIGITS = 18  # of a number that names a picture, with any zeros before it
NAME = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, SUFFIXES))}))(?=[\s,;|\"']|$)", re.IGNORECASE)  # that may have spaces in it
HEADS = frozenset([*FILES, *PERHAPS])  # one of which is in a line above the names
FEW = 8  # files in a folder by whose name they are lists


class List(NamedTuple):
    """Lines that name pictures."""

    path: str  # relative to the root
    speaker: str  # whose name says of which split: the file, a folder above it, or a column of it
    lines: list[str]

    @property
    def key(self) -> str:
        """What no other list has: a table has one for each column."""
        return self.speaker if COLUMN.match(self.speaker) else self.path


@dataclass
class Named:
    """What lists say, by picture."""

    of: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # (LISTS, whose name says of which split)
    doubtful: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # the same of lines that fit several pictures
    files: set[str] = field(default_factory=set)  # that are lists
    words: list[dict[str, str]] = field(default_factory=list)  # what stands after each picture that a list names, which may be its class
    more: dict[str, str] = field(default_factory=dict)  # a line of each list that says more than the name of a picture
    warnings: list[str] = field(default_factory=list)


def candidates(
    root: Path, others: Iterable[File], pictures: Iterable[str], folders: set[str], failed: Iterable[str]
) -> tuple[list[List], list[str]]:
    """(the files that may be lists by their names, a sentence where they are too many). `failed` are tables that are none, `folders` have pictures."""
    tables, found = set(failed), dict[str, str]()
    texts = [
        file
        for file in others
        if 0 < file.size <= LARGEST and ((end := ending(file.path)) in ENDINGS[:3] or not end or (file.path in tables and end in ENDINGS))
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
        first = shown(min(found))
        return [], [
            f"{len(found):,} text files have the name of a split, and not one is read, the first {first}: up to {MOST} are read as lists of pictures. "
            "A table with `file_name` and `split`, such as metadata.csv, says which pictures are held out."
        ]
    return [List(path, told, _captions.read(root / path)[0].splitlines()) for path, told in sorted(found.items())], []


def untrained(others: Iterable[File], pictures: Sequence[str]) -> bool:
    """Whether a file has the plain name of a training split's list or table; its pictures may not be there."""
    found = {
        file.path: file.path for file in others if ending(file.path) in LISTED and word_of(file.path)[0] == "train" and is_plain(file.path)
    }
    return bool(found) and bool(_without_captions(found, {*pictures}))


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
    pictures = list(pictures)
    index, folders = Index(pictures), {part for path in pictures for part in path.split("/")[:-1]}
    read = {each.key: (each, fits) for each in lists if (fits := _fits(each, index, pictures))}
    passed, said = _folds.first_of_lists(
        {key: (word_of(each.speaker)[0], {found[0] for _, found in fits if len(found) == 1}) for key, (each, fits) in read.items()}
    )
    out.files, out.warnings = {each.path for each, _ in read.values()}, [said] if said else []
    for key, (each, fits) in read.items():
        if key not in passed:
            _hear(each, fits, held, folders, out)
    return out


def _hear(each: List, fits: list[tuple[str, list[str]]], held: set[str], folders: set[str], out: Named) -> None:
    """Take over what the lines of a list say."""
    words = {found[0]: parts[1] for line, found in fits if len(found) == 1 and len(parts := line.replace(",", " ").split()) > 1}
    out.words.append(words)
    if more := next((line.strip() for line, found in fits if found and words.get(found[0], "") not in ("", *folders)), ""):
        out.more[each.path] = more
    for _, found in fits:
        for path in found if len(found) == 1 or held.isdisjoint(found) else ():
            (out.of if len(found) == 1 else out.doubtful).setdefault(path, []).append((LISTS, each.speaker))
    strange = [line for line, found in fits if not found]
    if (
        strange
        and strange[0] is fits[0][0]
        and each.key == each.path
        and (ending(each.path) in ENDINGS[3:5] or strange[0].strip().isdecimal() or not HEADS.isdisjoint(strange[0].casefold().split()))
    ):
        strange = strange[1:]  # the names of columns, or how many lines there are
    if strange:
        names = "line names" if len(strange) == 1 else "lines name"
        out.warnings.append(f"{shown(each.key)}: {len(strange):,} {names} no picture, the first {shown(strange[0].strip()[:80])}.")


def _fits(each: List, index: "Index", pictures: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each line with the pictures that it may mean; [] of what is no list."""
    folder = each.path.rpartition("/")[0]
    lines = [line for line in each.lines if line.strip(_one_line.BRACKETS) and not line.lstrip().startswith("#")]
    if lines and lines[0].strip() == str(len(lines) - 1) and not all(line.strip().isdecimal() for line in lines):
        lines = lines[1:]  # below how many there are
    if len(lines) == 1 and lines[0].strip().isdecimal() and word_of(each.speaker)[0] == "train":
        return []  # how many there are
    lines = [name for line in lines for name in _one_line.apart(line, lambda word: index.of(word, folder), alone=len(lines) == 1)]
    fits = [(line, index.of(line, folder)) for line in lines]
    known = sum(bool(found) for _, found in fits)
    if each.speaker in (each.path, each.key) and known < len(lines):
        below = _of_folders(lines, pictures)
        if sum(map(bool, dict(below).values())) > known:
            return below
    if known and (2 * known >= len(fits) or any(found and _has_ending(line) for line, found in fits)):
        return fits
    return []


def _of_folders(lines: Sequence[str], pictures: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The same of a list of folders, such as classes or people that are held out; each picture below them stands in a line of its own."""
    below: dict[str, list[str]] = defaultdict(list)
    for path in pictures:
        for part in path.split("/")[:-1]:
            below[alike(part)].append(path)
    fits = [(line, next((below[key] for word in _words(line) for key in _folders(word) if key in below), [])) for line in lines]
    if 2 * sum(bool(found) for _, found in fits) < len(fits) or not any(found for _, found in fits):
        return []
    return [(line, each) for line, found in fits for each in ([[path] for path in found] or [[]])]


def _folders(word: str) -> tuple[str, str]:
    """How a folder may be called that a word names: `slide_1.svs` has its patches in `slide_1`."""
    key = alike(word.rstrip("/"))
    return key, os.path.splitext(key)[0]


def _has_ending(line: str) -> bool:
    return any(ending(word) in SUFFIXES for word in (line.strip(), *line.replace(",", " ").split()))


class Index:
    """Pictures by the ends of their paths, without their endings."""

    def __init__(self, pictures: Iterable[str]):
        self.by: dict[str, list[str]] = defaultdict(list)
        self.numbers: dict[int, list[str]] = defaultdict(list)
        for path in pictures:
            if (stem := _stem(path)).isdecimal() and len(stem) <= DIGITS:
                self.numbers[int(stem)].append(path)
            parts = os.path.splitext(alike(path))[0].split("/")
            for start in range(len(parts)):
                self.by["/".join(parts[start:])].append(path)

    def of(self, line: str, folder: str) -> list[str]:
        """The pictures that a line may mean, by the surest word of it that one alone may be; of several those in the folder of the list."""
        fits = [found for word in _words(line) if (found := self._of_word(word, folder))]
        if fits:
            return next((found for found in fits if len(found) == 1), fits[0])
        bare = line.strip()
        return self.numbers.get(int(bare), []) if bare.isdecimal() and len(bare) <= DIGITS else []

    def _of_word(self, word: str, folder: str) -> list[str]:
        """The same of a word, as it is and as a web address is decoded."""
        return self._of_end(word, folder) or (self._of_end(unquote(word), folder) if "%" in word else [])

    def _of_end(self, word: str, folder: str) -> list[str]:
        """The same by the longest end of the name that any picture has."""
        parts = [part for part in alike(word.replace("\\", "/")).split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            short = os.path.splitext(end)[0] if ending(end) in KNOWN else end
            if found := self.by.get(short):
                exact = [path for path in found if alike(path) == end] or [path for path in found if alike(path).endswith(f"/{end}")]
                near = [path for path in found if path.startswith(f"{folder}/")]
                return exact if len(exact) == 1 else near or found
        return []


def _words(line: str) -> Iterator[str]:
    """What may name a picture in a line, the surest first."""
    line = line.strip().strip("\ufeff")
    yield line.strip("\"'")
    if found := NAME.match(line):
        yield found[1].strip("\"'")
    for mark in "\t,;|":
        if mark in line:
            yield line.partition(mark)[0].strip().strip("\"'")
    words = line.replace(",", " ").replace(";", " ").split()
    yield from words[:1]
    yield from (word for word in words[1:] if ending(word) in SUFFIXES)
