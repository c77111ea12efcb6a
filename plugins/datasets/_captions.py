"""Captions in files of their own: `picture.txt` or `picture.caption` beside `picture.jpg`, in any case."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from ._formats import ending
from ._names import alike, are, counted, shown
from ._tree import File, once

READ = (".txt", ".caption")  # the first is heard first
BOX = re.compile(r"\d+(?:\s+-?\d*\.?\d+(?:e-?\d+)?){4,}", re.IGNORECASE)  # a line of YOLO: a class, and where it is
BOXES = "boxes"
OTHERS = (".captions", ".cap", ".tags", ".tag", ".prompt", ".prompts", ".cls", ".json", ".xml", ".yaml", ".yml", ".npy", ".npz", ".md")


def beside(others: Iterable[File], pictures: Iterable[str]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """(the caption files of each picture that has some, remarks on those of none and on what else lies beside pictures)."""
    exact: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        exact[os.path.splitext(picture)[0]].append(picture)
        exact[picture].append(picture)  # picture.jpg.txt
    loose: dict[str, list[str]] = {}
    found: dict[str, list[str]] = defaultdict(list)
    alone: list[File] = []
    unread = Counter[str]()
    for file in sorted(others, key=lambda file: (READ.index(end) if (end := ending(file.path)) in READ else len(READ), file.path)):
        suffix, stem = ending(file.path), os.path.splitext(file.path)[0]
        if suffix not in (*READ, *OTHERS):
            continue
        if stem not in exact and not loose and suffix in READ:
            loose = defaultdict(list)
            for key, paths in exact.items():
                loose[alike(key)].extend(paths)
        owners = exact.get(stem) or (loose.get(alike(stem)) if loose else None) or []
        if suffix in OTHERS:
            unread[suffix] += bool(owners)
        elif not owners:
            alone.append(file)
        else:
            for owner in dict.fromkeys(owners):
                found[owner].append(file.path)
    remarks = []
    if alone := once(alone):
        belong = "belongs" if len(alone) == 1 else "belong"
        remarks.append(f"{counted(len(alone), 'text file')} {belong} to no picture, the first {shown(alone[0].path)}.")
    if +unread:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in unread.most_common() if count)
        remarks.append(f"Files beside pictures that are not read: {kinds}. Captions are read from .txt and .caption.")
    return {path: tuple(files) for path, files in found.items()}, remarks


def head(file: Path) -> str:
    """The beginning of a text, in UTF-8; '' of what cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(1 << 14).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def caption(file: Path) -> tuple[str, str]:
    """The same as `read`; a file that holds the boxes of things is no caption."""
    text, why = read(file)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ("", BOXES) if lines and all(map(BOX.fullmatch, lines)) else (text, why)


def sentence(why: str, number: int, split: str, first: str) -> str:
    """What is odd about so many caption files of a split."""
    files, verb = f"{counted(number, 'caption file')} of {split}", are(number)
    if why == BOXES:
        what = f"{counted(number, 'text file')} beside pictures of {split} {'holds' if number == 1 else 'hold'}"
        return f"{what} numbers, as YOLO writes boxes, and {verb} no {'caption' if number == 1 else 'captions'}, the first {shown(first)}."
    read_as = why in ("UTF-16", "Windows-1252")
    how = f"{verb} not in UTF-8 and read as {why}" if read_as else f"cannot be read ({why}) and {verb} left out"
    return f"{files} {how}, the first {shown(first)}."


def read(file: Path) -> tuple[str, str]:
    """(the caption, what was guessed or went wrong). UTF-8 or UTF-16; other bytes are read as Windows-1252."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return "", error.strerror or str(error)
    for mark, encoding in ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, "replace").strip(), ""
    if not content.strip(b"\0"):  # empty, or what a crash left of a file
        return "", ""
    if b"\0" in content:  # UTF-16 without its mark: every other byte of western text is zero
        even, odd = content[0::2].count(0), content[1::2].count(0)
        return content.decode("utf-16-le" if odd >= even else "utf-16-be", "replace").strip(), "UTF-16"
    try:
        return content.decode("utf-8-sig").strip(), ""
    except UnicodeDecodeError:
        return "".join(map(_western, content)).strip(), "Windows-1252"


def _western(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)
