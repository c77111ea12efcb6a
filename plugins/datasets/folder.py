"""Any folder of pictures, at any depth, with the labels and captions found beside them.

Splits:    sub-folders `train` and `val` (or validation, valid, test); otherwise a
           hash of each relative path decides, so added files move no others.
Labels:    `metadata.jsonl` or `metadata.csv` (file_name, label, text; paths
           relative to it); without any, the first level of sub-folders.
Captions:  `text`, `caption` or `prompt` in the metadata, or `picture.txt` beside
           `picture.jpg`.
"""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image
from pydantic import Field

from ldmctl.config import Place, PluginConfig
from ldmctl.errors import DataError
from ldmctl.protocols import Example
from ldmctl.storage.assets import find_data

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".jp2")
VAL = ("val", "validation", "valid", "test")  # the first that is there
METADATA = ("metadata.jsonl", "metadata.csv")
CAPTIONS = ("text", "caption", "prompt")
LAYOUT = "a folder of pictures at any depth, with train/ and val/ if they are split"


class File(NamedTuple):
    """One file below the root."""

    path: str  # relative, with slashes
    size: int  # bytes
    time: int  # ns


class Note(NamedTuple):
    """What metadata says of one picture."""

    label: str | None
    text: str


class Folder:
    """Pictures of a folder, sorted by path; opened here, decoded by the host."""

    class Config(PluginConfig):
        path: str | list[str] = Field(
            description="the folder, or several of which the first that exists is taken; relative to LDMCTL_DATA", json_schema_extra=Place
        )
        source: str = Field("", description="how to get the pictures, said when they are missing", json_schema_extra=Place)
        val_share: float = Field(0.05, ge=0, lt=1, description="share of the pictures kept for validation where no sub-folders split them")
        suffixes: list[str] = Field(list(SUFFIXES), description="endings of picture files, in any case")

    def __init__(self, config: Config, *, split: str):
        self.root = find_data(config.path, source=config.source, layout=LAYOUT)
        pictures, others = _scan(self.root, {suffix.lower() for suffix in config.suffixes})
        splits = _split(pictures, config.val_share)
        used = [*splits["train"], *splits["val"]]
        notes = _notes(self.root, [file.path for file in others if file.path.rpartition("/")[2].lower() in METADATA], used)
        labels = {path: note.label for path, note in notes.items()} if notes else _folders(splits)
        self.files = splits[split]
        self.classes = _natural({label for file in used if (label := labels.get(file.path)) is not None})
        number = {name: i for i, name in enumerate(self.classes)}
        self.labels = [number.get(labels.get(file.path) or "", -1) for file in self.files]
        self.texts = {file.path: notes[file.path].text for file in self.files if file.path in notes}
        self.sidecars = {file.path for file in others if file.path.lower().endswith(".txt")}
        if not used or (split == "train" and not self.files):
            raise DataError(_nothing(self.root, split if used else "", others))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        path = self.files[index].path
        try:
            picture = Image.open(self.root / path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{self.root / path} cannot be read as a picture: {error}") from None
        return Example(picture, *self.note(index))

    def stamp(self, index: int) -> str:
        """`path:size:mtime` as found when the folder was read."""
        return ":".join(map(str, self.files[index]))

    def content(self, index: int) -> str:
        """SHA-256 of the file."""
        with (self.root / self.files[index].path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def note(self, index: int) -> tuple[int, str]:
        """(label, caption) by folders, metadata and the text file beside the picture."""
        path = self.files[index].path
        return self.labels[index], self.texts.get(path) or self._sidecar(path)

    def _sidecar(self, path: str) -> str:
        caption = str(PurePosixPath(path).with_suffix(".txt"))
        if caption not in self.sidecars:
            return ""
        try:
            return (self.root / caption).read_text(encoding="utf-8-sig", errors="replace").strip()
        except OSError as error:
            raise DataError(f"The caption {self.root / caption} cannot be read: {error}") from None


# -- files -------------------------------------------------------------------


def _scan(root: Path, suffixes: set[str]) -> tuple[list[File], list[File]]:
    """The pictures below the root and all other files, each sorted by path. Hidden files are neither; empty ones are no pictures."""
    if not root.is_dir():
        raise DataError(f"{root} is a file; a folder of pictures was expected. Unpack archives first.")
    pictures: list[File] = []
    others: list[File] = []
    for file in _walk(root):
        fits = os.path.splitext(file.path)[1].lower() in suffixes and file.size > 0
        (pictures if fits else others).append(file)
    return sorted(pictures), sorted(others)


def _walk(root: Path) -> Iterator[File]:
    waiting, seen = [("", os.fspath(root))], set()
    while waiting:
        prefix, folder = waiting.pop()
        try:
            info = os.stat(folder)
            entries = list(os.scandir(folder)) if (info.st_dev, info.st_ino) not in seen else []  # a link may lead back up
        except OSError as error:
            raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from None
        seen.add((info.st_dev, info.st_ino))
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                waiting.append((f"{prefix}{entry.name}/", entry.path))
            elif entry.is_file():  # not a dangling link
                info = entry.stat()
                yield File(prefix + entry.name, info.st_size, info.st_mtime_ns)


def _split(pictures: list[File], val_share: float) -> dict[str, list[File]]:
    """Both splits: by sub-folder where there is one called train, with one for val or alone, otherwise by hash."""
    tops = {file.path.partition("/")[0] for file in pictures if "/" in file.path}
    train = [file for file in pictures if file.path.lower().startswith("train/")]
    for name in VAL if train else ():
        if any(top.lower() == name for top in tops):
            return {"train": train, "val": [file for file in pictures if file.path.lower().startswith(f"{name}/")]}
    split = len(tops) == 1 or any(file.path.count("/") > 1 for file in train)  # else one class of several is called train
    return _by_hash(train if train and split else pictures, val_share)


def _by_hash(files: list[File], val_share: float) -> dict[str, list[File]]:
    place = {file.path: _hash(file.path) for file in files}
    val = {path for path, value in place.items() if value < val_share}
    if len(files) == 1:
        val = set()
    elif val_share > 0 and files:  # no split is left empty
        val = val or {min(place, key=place.__getitem__)}
        val -= {max(place, key=place.__getitem__)}
    return {"train": [file for file in files if file.path not in val], "val": [file for file in files if file.path in val]}


def _hash(path: str) -> float:
    """A number in [0, 1) that belongs to this path."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "big") / 2**64


def _nothing(root: Path, split: str, others: list[File]) -> str:
    seen = Counter(os.path.splitext(file.path)[1].lower() or "without suffix" for file in others)
    counts = ", ".join(f"{count} {suffix}" for suffix, count in seen.most_common(8)) or "no files"
    first = "; ".join(f"{file.path}{'' if file.size else ' (empty)'}" for file in others[:5])
    where = f"No {split + ' ' if split else ''}pictures were found in {root.absolute()} or below it."
    return f"{where} Other files there: {counts}." + (f"\nThe first ones: {first}." if first else "")


# -- labels and captions -----------------------------------------------------


def _folders(splits: Mapping[str, list[File]]) -> dict[str, str]:
    """The label of each picture by the first folder below the split's root, where there are two or more."""
    files = [*splits["train"], *splits["val"]]
    depth = 1 if files and all(file.path.partition("/")[0].lower() in ("train", *VAL) for file in files) else 0
    parts = {file.path: file.path.split("/") for file in files}
    labels = {path: part[depth] for path, part in parts.items() if len(part) > depth + 1}
    return labels if len(set(labels.values())) > 1 else {}


def _notes(root: Path, metadata: list[str], pictures: list[File]) -> dict[str, Note]:
    """What the metadata files say, by path below the root; those deeper in the tree are heard last."""
    notes: dict[str, Note] = {}
    for path in sorted(metadata, key=lambda path: (path.count("/"), path)):
        notes.update(_read(root, path))
    if notes and not any(file.path in notes for file in pictures):
        first = next(iter(notes))
        raise DataError(f"{root / metadata[0]} names none of the {len(pictures)} pictures found; its first is {root / first}.")
    return notes


def _read(root: Path, path: str) -> Iterator[tuple[str, Note]]:
    folder = path.rpartition("/")[0]
    try:
        text = (root / path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{root / path} cannot be read: {error}") from None
    for line, row in _rows(text, root / path):
        name = str(row.get("file_name") or "").replace("\\", "/")
        if not name:
            raise DataError(f"{root / path}, line {line}: `file_name` is missing; found {', '.join(map(str, row)) or 'nothing'}.")
        if name.startswith(("/", "~")) or ":" in name.split("/")[0] or ".." in name.split("/"):
            raise DataError(f"{root / path}, line {line}: {name!r} must be a path inside {root / folder}.")
        yield str(PurePosixPath(folder, name)), _note(row, f"{root / path}, line {line}")


def _note(row: Mapping[str, Any], where: str) -> Note:
    label = row.get("label")
    if isinstance(label, dict | list):
        raise DataError(f"{where}: `label` is one name or number, not {label!r}.")
    text = next((row[key] for key in CAPTIONS if row.get(key)), "")
    text = text[0] if isinstance(text, list) else text
    return Note(None if label is None or label == "" else str(label), str(text))


def _rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text))
        yield from ((reader.line_num, row) for row in reader)
        return
    for line, words in enumerate(text.split("\n"), start=1):
        try:
            row = json.loads(words) if words.strip() else None
        except ValueError as error:
            raise DataError(f"{path}, line {line} is not JSON: {error}") from None
        if isinstance(row, dict):
            yield line, row
        elif row is not None:
            raise DataError(f"{path}, line {line}: an object with `file_name` was expected, not {words[:40]!r}.")


def _natural(names: set[str]) -> list[str]:
    """Sorted, by number where all are numbers."""
    numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name), name) if numbers else (0, name))
