"""Any folder of pictures, at any depth, with the labels and captions found beside them.

Splits:    sub-folders for training and for held-out pictures by their usual names
           (train or training; val, validation, dev, eval, test ...), wherever
           they lie; otherwise a hash of each relative path decides, so added
           files move no others.
Labels:    `label` in a table; where no table has any, the first sub-folder below
           the split, if there are two or more.
Captions:  `text`, `caption` or `prompt` in a table, and `picture.txt` or
           `picture.caption` beside `picture.jpg`. Several are all kept.
Tables:    `metadata.csv`, `.jsonl`, `.json` or `.parquet` with `file_name`, and
           others that name pictures; paths are relative to the table.

Sheets:    what ldmctl made of other pictures, such as grid.png, is left out.

Maps:      in a folder `masks`, `maps`, `labels` or the like, by the names of the
           pictures, or in a column `map` or `mask` of a table. They are no pictures.
           CelebAMask-HQ's masks of parts are merged, its attributes are captions.

What was found and what was left out is said: `remarks` and `warnings`.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field

from ldmctl.config import Place, PluginConfig
from ldmctl.errors import DataError
from ldmctl.pictures.pillow import opened
from ldmctl.protocols import Example
from ldmctl.storage.assets import find_data

from . import _captions, _celeb, _columns, _copies, _formats, _maps, _pointers, _sheets, _tree, _unread
from ._file_names import by_file_names
from ._labels import held_out_alone, labels_of, without_splits
from ._names import counted, natural, shown
from ._notes import read_tables
from ._shares import shared_out
from ._tree import File
from ._values import distinct

LAYOUT = "a folder of pictures at any depth, with train/ and val/ if they are split"
READ_NOW = 20_000  # caption files of a split that are read when it is opened, to count them; of more, those that are not empty
FEW = 16  # of more, that are read to see whether they are captions at all


class Folder:
    """Pictures of a folder, sorted by path; opened here, decoded by the host."""

    class Config(PluginConfig):
        path: str | list[str] = Field(
            description="the folder, or several of which the first that exists is taken; relative to LDMCTL_DATA", json_schema_extra=Place
        )
        source: str = Field("", description="how to get the pictures, said when they are missing", json_schema_extra=Place)
        val_share: float = Field(0.05, ge=0, lt=1, description="share of the pictures kept for validation where no sub-folders split them")
        suffixes: list[str] = Field(list(_formats.SUFFIXES), description="endings of picture files, in any case")
        split_by: Literal["auto", "hash"] = Field(
            "auto",
            description="auto: folders named train, val, test and the like split the pictures, otherwise a hash; hash: whatever their names",
        )
        tables: bool = Field(True, description="labels and captions are read from tables beside the pictures")
        maps: str = Field(
            "auto",
            description="auto: folders called masks, maps, labels and the like whose files are named as the pictures are hold their maps and no "
            "pictures, or a column `map` of a table names them; none: there are no maps; otherwise the folder of the maps",
        )

    def __init__(self, config: Config, *, split: str):
        self.root = find_data(config.path, source=config.source, layout=LAYOUT)
        suffixes = _formats.wanted(config.suffixes)
        tree = _tree.scan(self.root)
        pictures, others = _sorted_out(tree.files, suffixes)
        pictures, sheets = _sheets.apart(self.root, pictures)
        pictures, pointers = _pointers.apart(self.root, pictures)
        maps = _maps.find(self.root, pictures, tree.files, config.maps, tables=config.tables)
        pictures, others = ([file for file in files if file.path not in maps.files] for files in (pictures, others))
        splits, warnings, remarks = shared_out(pictures, config.val_share, tree.folders() if config.split_by == "auto" else None)
        self.files, used = splits.train if split == "train" else splits.val, [*splits.train, *splits.val]
        if not used or (split == "train" and not self.files):
            raise DataError(_nothing(self.root, split if pictures else "", others))
        reduced = without_splits(splits, pictures)
        tables = read_tables(self.root, others, splits, pictures, reduced, wanted=config.tables)
        if config.split_by == "auto":
            by, few = by_file_names(pictures)
            named = {path: [*tables.splits.get(path, ()), *by.get(path, ())] for path in {*tables.splits, *by}}
            decided, more = _columns.apply(splits, named, pictures, tables.doubtful, config.val_share, untrained=tables.untrained)
            warnings = [*warnings, *more, *([few] if few and not decided and not splits.by_folder else [])]
            remarks = [*(decided or remarks[:1]), *remarks[1:]]
        warnings = [*warnings, *_copies.leave_out(self.root, splits)]
        tables.say(splits)
        self.files, used = splits.train if split == "train" else splits.val, [*splits.train, *splits.val]
        told = {path: note.label for path, note in tables.notes.items() if note.label is not None}
        labels, folders = labels_of(told, tables.words, splits)
        self.classes = natural(label for file in used if (label := labels.get(file.path)) is not None)
        number = {name: i for i, name in enumerate(self.classes)}
        self.labels = [number.get(labels.get(file.path, ""), -1) for file in self.files]
        self.texts = {file.path: note.texts for file in self.files if (note := tables.notes.get(file.path)) and note.texts}
        attributes, listed_in = _celeb.captions(self.root, others, self.files) if config.tables else ({}, "")
        self.texts |= {path: (text,) for path, text in attributes.items() if path not in self.texts}
        others = [file for file in others if file.path != listed_in and file.path not in tables.lists]
        unheard = _unread.lists(self.root, others, [file.path for file in pictures])
        if config.maps == "auto":
            _maps.of_tables(self.root, {path: note.map for path, note in tables.notes.items() if note.map}, maps)
        maps.say([file.path for file in used])
        self.maps = {file.path: maps.of[file.path] for file in self.files if file.path in maps.of}
        self.map_classes, self.has_maps = maps.classes, bool(maps.folders)
        sidecars, beside = _captions.beside([file for file in others if file.path not in unheard], (file.path for file in pictures))
        self.sidecars = {file.path: sidecars[file.path] for file in self.files if file.path in sidecars}
        named = _tree.once(others)
        skipped = _formats.unread((file.path for file in named if file.size), suffixes)
        empty = [file.path for file in named if not file.size and _formats.ending(file.path) in suffixes]
        self.warnings = [
            *tree.warnings(),
            *warnings,
            *pointers,
            *([_formats.account(skipped)] if skipped else []),
            *(
                [f"{counted(len(empty), 'picture file')} {'is' if len(empty) == 1 else 'are'} empty, the first {shown(empty[0])}."]
                if empty
                else []
            ),
            *tables.warnings,
            *_unread.said(unheard),
            *held_out_alone(labels, splits),
            *maps.warnings,
        ]
        self.remarks = [
            *remarks,
            *([folders] if folders else []),
            *tables.remarks,
            *maps.remarks,
            *beside,
            *sheets,
            *_unread.archives(others),
            *tree.remarks(suffixes),
        ]
        self.counts = {"labels": sum(label >= 0 for label in self.labels), "captions": self._count_captions(others, split)}
        self.counts |= {"maps": len(self.maps)} if self.has_maps else {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        path = self.files[index].path
        _formats.register()  # in this process
        mapped = self.maps.get(path)
        picture, (label, text) = opened(self.root / path), self.note(index)
        try:
            return Example(picture, label, text, opened(mapped) if isinstance(mapped, Path) else mapped)
        except DataError:  # the picture is as good as it was: who wants its map opens the file, and says so
            return Example(picture, label, text, mapped)

    def stamp(self, index: int) -> str:
        """`path:size:mtime` as found when the folder was read."""
        file = self.files[index]
        return f"{file.path}:{file.size}:{file.time}"

    def content(self, index: int) -> str:
        """SHA-256 of the file."""
        with (self.root / self.files[index].path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def note(self, index: int) -> tuple[int, str]:
        """(label, caption) by folders, tables and the text file beside the picture."""
        path = self.files[index].path
        text = self.texts.get(path, ("",))[0]
        return self.labels[index], text or next(filter(None, self._beside(path)), "")

    def map_stamp(self, index: int) -> str:
        """`path:size:mtime` of the map, as it is now; '' where there is none."""
        mapped = self.maps.get(self.files[index].path)
        return _maps.stamp(mapped, self.root) if mapped else ""

    def captions(self, index: int) -> tuple[str, ...]:
        """Every caption of an item, that of its `note` first."""
        path = self.files[index].path
        return distinct([*self.texts.get(path, ()), *self._beside(path)])

    def _beside(self, path: str) -> list[str]:
        return [_captions.caption(self.root / file)[0] for file in self.sidecars.get(path, ())]

    def _count_captions(self, others: list[File], split: str) -> int:
        """How many pictures have a caption; what is odd about caption files is said."""
        if sum(map(len, self.sidecars.values())) > READ_NOW:
            empty = {file.path for file in others if not file.size}
            probed = [files[0] for files in list(self.sidecars.values())[:FEW]]
            if all(_captions.caption(self.root / file)[1] == _captions.BOXES for file in probed):
                self.warnings.append(_captions.sentence(_captions.BOXES, len(self.sidecars), split, probed[0]))
                return len(self.texts)
            return len({*self.texts, *(path for path, files in self.sidecars.items() if not set(files) <= empty)})
        captioned, several, odd = set(self.texts), {path for path, texts in self.texts.items() if len(texts) > 1}, Counter[str]()
        first: dict[str, str] = {}
        for path, files in self.sidecars.items():
            texts = list(self.texts.get(path, ()))
            for file in files:
                text, why = _captions.caption(self.root / file)
                texts.append(text)
                if why:
                    odd[why] += 1
                    first.setdefault(why, file)
            if texts := list(distinct(texts)):
                captioned.add(path)
            if len(texts) > 1:
                several.add(path)
        for why, count in odd.items():
            self.warnings.append(_captions.sentence(why, count, split, first[why]))
        if several:
            self.remarks.append(
                f"{counted(len(several), 'picture')} of {split} {'has' if len(several) == 1 else 'have'} several captions: the cache keeps all, the first is `text`."
            )
        return len(captioned)


def _sorted_out(files: list[File], suffixes: set[str]) -> tuple[list[File], list[File]]:
    """The pictures, and all other files; empty ones are no pictures."""
    pictures: list[File] = []
    others: list[File] = []
    for file in files:
        (pictures if file.size > 0 and _formats.ending(file.path) in suffixes else others).append(file)
    return pictures, others


def _nothing(root: Path, split: str, others: list[File]) -> str:
    seen = Counter(os.path.splitext(file.path)[1].lower() or "without suffix" for file in others)
    counts = ", ".join(f"{count} {suffix}" for suffix, count in seen.most_common(8)) or "no files"
    first = "; ".join(f"{shown(file.path)}{'' if file.size else ' (empty)'}" for file in others[:5])
    where = f"No {split + ' ' if split else ''}pictures were found in {root.absolute()} or below it."
    return f"{where} Other files there: {counts}." + (f"\nThe first ones: {first}." if first else "")
